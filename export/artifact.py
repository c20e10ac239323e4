"""An artifact is published with its certificate, or set aside as rejected: nothing in between has its name.

It is written and proven in a folder of its own; only a proof moves it to where it was asked for.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres import records
from tinyres.export.certificate import Certificate, certificate_path
from tinyres.files import remove, storage_errors, sync_folder, write_text

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder beside `target` for its candidate; the folder is removed at the end."""
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield folder / target.name
    finally:
        if folder.exists():
            remove(folder)


def publish(candidate: Path, target: Path, certificate: Certificate) -> None:
    """Move a proven candidate and all that was written beside it to `target`; the artifact itself comes last.

    Errors: StorageError.
    """
    records.save(certificate_path(candidate), certificate)
    with storage_errors(target):
        others = [path for path in sorted(candidate.parent.iterdir()) if path != candidate]
        for path in (*others, candidate):
            path.replace(target.parent / path.name)
        sync_folder(target.parent)
    remove(rejected_path(target))  # an earlier failure of the same artifact is settled


def reject(candidate: Path, target: Path, certificate: Certificate, *, reproduce: str) -> Path:
    """Keep a candidate that failed in `<target>.rejected/`, with its report and a script. Errors: StorageError."""
    records.save(certificate_path(candidate), certificate)
    write_text(candidate.parent / "reproduce.py", reproduce)
    folder = rejected_path(target)
    remove(folder)
    with storage_errors(folder):
        candidate.parent.replace(folder)
        folder.chmod(0o755)
    return folder


def rejected_path(target: Path) -> Path:
    """Where a candidate for `target` goes if it fails."""
    return target.with_name(target.name + ".rejected")
