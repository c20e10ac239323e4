"""A picture set to measure classification at scale on: `python -m tinyres.bench.studies.shards FOLDER`.

20,000 JPEGs, 400 drawn ones under many names, as `FOLDER/webdataset/*.tar` of 1,000 and as files in `FOLDER/folder`.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

from PIL import Image

from tinyres.data import shapes

PICTURES, DISTINCT, SHARD = 20_000, 400, 1_000
SIZES = (96, 64)
"""By turns: one that is resized, one that is not."""


def main() -> None:
    """Draw and write."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m tinyres.bench.studies.shards FOLDER")
    root = Path(sys.argv[1])
    drawn = [_jpeg(index) for index in range(DISTINCT)]
    (root / "webdataset").mkdir(parents=True)
    for start in range(0, PICTURES, SHARD):
        name = f"{start // SHARD:03}"
        (root / "folder" / name).mkdir(parents=True)
        with tarfile.open(root / "webdataset" / f"{name}.tar", "w") as tar:
            for number in range(start, start + SHARD):
                content = drawn[number % DISTINCT]
                member = tarfile.TarInfo(f"{number:06}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                (root / "folder" / name / member.name).write_bytes(content)


def _jpeg(index: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(shapes.render("val", index, SIZES[index % 2])).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
