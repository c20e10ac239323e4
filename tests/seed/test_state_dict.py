"""Files of torch.save's form that torch.save did not write: each is refused before it takes more than it holds."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch

from tinyres.errors import CheckpointError
from tinyres.seed import state_dict
from tinyres.seed import weights as seed


def pth(pickled: bytes, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"data.pkl": pickled, "data/0": bytes(8), **more}.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


DICT = b"ccollections\nOrderedDict\nq\x00"
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x02tQq\x01"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\nq\x00"


def one_tensor(offset: bytes, shape: bytes, strides: bytes) -> bytes:
    return b"}" + text("w") + REBUILD + b"(" + STORAGE + offset + shape + strides + b"\x89}tRs."


ITEMS = b"".join(text(f"{number:04}") + b"\x88" for number in range(3000))
BAD = {
    "bytearray": (b"c__builtin__\nbytearray\n\x8a\x04\x00\x00\x00\x70\x85R.", "it names '__builtin__.bytearray'"),
    "newer pickle": (b"\x80\x04\x8c\x02os\x94.", "more than a dict of tensors, by the instruction SHORT_BINUNICODE"),
    "extension": (b"\x82\x01.", "by the instruction EXT1"),
    "cut short": (b"}", "loads safely: ValueError"),
    "empty stack": (b"R.", "loads safely: TypeError"),
    "copies of a dict": (DICT + b"}q\x01(" + ITEMS + b"u(" + b"h\x00h\x01\x85R" * 3000 + b"t.", "no plain shape"),
    "one endless shape": (
        REBUILD + STORAGE + b"(" + b"K\x01" * 9000 + b"tq\x02(h\x01K\x00h\x02h\x02\x89}tq\x03" + b"h\x00h\x03R" * 3000,
        "no plain shape",
    ),
    "endless pickle": (b"N" * (state_dict.MOST_PICKLE_BYTES + 1), r"its data\.pkl is larger than 1,048,576 bytes"),
    "endless stride": (one_tensor(b"K\x00", b"K\x02\x85", b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85"), "no plain shape"),
    "negative stride": (one_tensor(b"K\x01", b"K\x02\x85", b"J\xff\xff\xff\xff\x85"), "no plain shape"),
    "beyond the storage": (one_tensor(b"K\x01", b"K\x02\x85", b"K\x01\x85"), "'w' does not lie within its numbers"),
    "numbers for names": (b"}K\x01K\x02s.", "names that are no text"),
    "storage of bytes": (b"K\x01Q.", "a storage of another form"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_pickle_that_is_no_state_dict_is_refused_and_takes_no_memory(case: str, tmp_path: Path) -> None:
    pickled, message = BAD[case]
    (tmp_path / "bad.pth").write_bytes(pth(pickled))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=message):
        seed.read_state_dict(tmp_path / "bad.pth")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


def test_the_pickles_here_differ_from_a_good_one_by_their_fault_alone(tmp_path: Path) -> None:
    (tmp_path / "good.pth").write_bytes(pth(one_tensor(b"K\x00", b"K\x02\x85", b"K\x01\x85")))
    assert torch.equal(seed.read_state_dict(tmp_path / "good.pth")["w"], torch.zeros(2))


GOOD = one_tensor(b"K\x00", b"K\x02\x85", b"K\x01\x85")


def claiming(content: bytes) -> bytes:
    """The last member of the directory claims 2 GB, stored."""
    at = content.rindex(b"PK\x01\x02")
    return content[: at + 20] + struct.pack("<II", 2 * 10**9, 2 * 10**9) + content[at + 28 :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (claiming(pth(GOOD)), "its members claim more bytes than it has"),
        (pth(GOOD, **{"x/data.pkl": GOOD}), r"it has 2 members \*/data.pkl"),
        (pth(GOOD, byteorder=b"middle"), "not in this machine's byte order"),
        (pth(GOOD) + b"PK\x01\x02" * (state_dict.MOST_MEMBERS + 1), "it has too many members"),
    ],
)
def test_a_zip_that_torch_does_not_write_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        seed.read_state_dict(tmp_path / "bad.pth")


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    content = pth(GOOD, **{"data/1": b"x"}).replace(b"archive/data/1", b"archive/data/0")
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="two of its members have one name"):
        seed.read_state_dict(tmp_path / "bad.pth")
