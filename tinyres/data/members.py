"""Names by the hundred thousand and the members of a zip, in some dozens of bytes each; it refuses nothing.

Every process that decodes holds them: as Python's own objects, a member takes 750 bytes.
"""

from __future__ import annotations

import os
import struct
import zipfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from operator import attrgetter
from typing import IO, overload

LOCAL_HEADER = 30
"""Bytes before a member's name (APPNOTE.TXT 4.3.7); the last four are the lengths of name and extra field."""
ENCRYPTED = 0x41
"""Either kind, in a member's flags."""
_FIELDS = ("header_offset", "compress_size", "compress_type", "flag_bits", "file_size", "CRC")


class Names(Sequence[str]):
    """Names in the order given, as one text and where each ends."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [_encoded(name) for name in names]
        self._text = b"".join(encoded)
        self._ends = array("q", accumulate(map(len, encoded), initial=0))
        self._guess = 0

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return self._text[self._ends[number] : self._ends[number + 1]].decode(errors="surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self._text[start:end].decode(errors="surrogatepass") for start, end in pairwise(self._ends))

    def place_of(self, name: str) -> int:
        """Where `name` is, if the names are sorted. Errors: LookupError."""
        text, ends, wanted = self._text, self._ends, _encoded(name)
        low, high = 0, len(self)
        guess = self._guess  # most names are asked for in their order
        if guess < high and text[ends[guess] : ends[guess + 1]] == wanted:
            low = high = guess
        while low < high:  # bytes of UTF-8 sort as their characters do
            middle = (low + high) // 2
            if text[ends[middle] : ends[middle + 1]] < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or text[ends[low] : ends[low + 1]] != wanted:
            raise LookupError("there is no such member")
        self._guess = low + 1
        return low


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogatepass")  # names that are no UTF-8 on disk have lone surrogates in Python


class Members:
    """Where the members of a zip lie, by name; of several of one name the last."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        last = {info.filename: info for info in archive.infolist()}
        names = sorted(last)
        self.names = Names(names)
        values = chain.from_iterable(map(attrgetter(*_FIELDS), map(last.__getitem__, names)))
        self._fields = array("q", values)
        starts = self._fields[_FIELDS.index("header_offset") :: len(_FIELDS)]
        if len(set(starts)) < len(names):
            raise zipfile.BadZipFile("several names lead to one member")  # a bomb of few bytes

    def find(self, name: str) -> zipfile.ZipInfo:
        """What reading a member takes. Errors: LookupError."""
        info = zipfile.ZipInfo(name)
        for field, value in zip(_FIELDS, self._row(name), strict=True):
            setattr(info, field, value)
        return info

    def state(self, name: str) -> str:
        """Size and CRC. Errors: LookupError."""
        *_, size, crc = self._row(name)
        return f"{size},{crc}"

    def _row(self, name: str) -> array[int]:
        start = self.names.place_of(name) * len(_FIELDS)
        return self._fields[start : start + len(_FIELDS)]


def open_member(file: IO[bytes], info: zipfile.ZipInfo) -> zipfile.ZipExtFile:
    """Read a member of the open zip `file`, inflated and held to its CRC. Errors: whatever zipfile raises on damage."""
    if info.flag_bits & ENCRYPTED:
        raise RuntimeError("it is encrypted")
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("there is no member where the directory says")
    file.seek(sum(struct.unpack("<HH", header[-4:])), os.SEEK_CUR)
    return zipfile.ZipExtFile(file, "r", info)
