"""Arrays from an .npz file that may be a stranger's: no pickle, and no memory beyond what the file really holds."""

from __future__ import annotations

import io
import math
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

STEP = 2**16
"""Bytes that are inflated at a time."""
MOST_INFLATED = 512 * 2**20
"""Of all arrays together, in bytes: a zip inflates to a thousand times its size and more."""


def read_arrays(content: bytes, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The named arrays of an .npz file's `content`.

    Errors: ValueError, KeyError and whatever zipfile and zlib raise on what is none, or claims more than it holds.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > MOST_INFLATED:
            raise ValueError(f"it inflates to more than {MOST_INFLATED:,} bytes")
        return {name: _array(_inflated(archive, f"{name}.npy")) for name in names}


def _inflated(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member in steps: zipfile inflates in one go, far past the size that a member claims, and then cuts it off."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in a way that NumPy does not use")
    with archive.open(info) as member:
        return b"".join(iter(lambda: member.read(STEP), b""))


def _array(content: bytes) -> NDArray[Any]:
    """The header first, since NumPy takes memory for the shape that it claims."""
    file = io.BytesIO(content)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"it is an array of version {version}")
    shape, fortran, kind = readers[version](file)
    if kind.hasobject:
        raise ValueError("it holds objects, which only a pickle makes")
    if math.prod(shape) * kind.itemsize != len(content) - file.tell():
        raise ValueError(f"it claims the shape {shape} and holds {len(content) - file.tell():,} bytes")
    return np.frombuffer(content, kind, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
