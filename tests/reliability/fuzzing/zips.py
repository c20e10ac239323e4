"""Zips that bite, byte by byte: names that climb, streams that swell, headers that lie. Python's writer makes none."""

from __future__ import annotations

import bz2
import io
import lzma
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
SYMLINK = 0o120777 << 16
HUGE = 600 * 2**20
"""More than a member may inflate to."""


@dataclass(frozen=True)
class Member:
    """One file as its headers tell of it; what is None is told truly."""

    name: bytes
    content: bytes
    """As it lies in the zip, compressed."""
    method: int = STORED
    size: int | None = None
    """Claimed, of what it inflates to."""
    crc: int | None = None
    flags: int = 0x800
    """UTF-8 names."""
    attributes: int = 0
    offset: int | None = None
    """Of its local header, as the directory claims."""
    extra: bytes = b""

    @property
    def plain(self) -> bytes:
        """What it inflates to, where it does and nothing is claimed."""
        with suppress(zlib.error):
            return zlib.decompress(self.content, -15) if self.method == DEFLATED and self.size is None else self.content
        return b""


def written(members: Sequence[Member], *, count: int | None = None, comment: bytes = b"") -> bytes:
    """A zip of exactly these headers; `count` is how many the end claims there are."""
    body, directory = io.BytesIO(), io.BytesIO()
    for member in members:
        size = len(member.plain) if member.size is None else member.size
        crc = zlib.crc32(member.plain) if member.crc is None else member.crc
        told = (member.flags, member.method, 0, 33, crc, len(member.content), size, len(member.name))
        offset = body.tell() if member.offset is None else member.offset
        if member.offset is None:
            body.write(struct.pack("<4s5H3I2H", b"PK\3\4", 45, *told, 0) + member.name + member.content)
        rest = (len(member.extra), 0, 0, 0, member.attributes, offset)
        directory.write(struct.pack("<4s6H3I5H2I", b"PK\1\2", 0x031E, 45, *told, *rest) + member.name + member.extra)
    start, length = body.tell(), directory.tell()
    body.write(directory.getvalue())
    told_count = min(len(members) if count is None else count, 0xFFFF)
    body.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, told_count, told_count, length, start, len(comment)) + comment)
    return body.getvalue()


def with_zip64_end(members: Sequence[Member], numbers: Sequence[int]) -> bytes:
    """A zip whose zip64 end record claims `numbers`: entries here, entries, bytes and place of the directory."""
    plain = written(members)
    end = plain[-22:]
    at = len(plain) - 22
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, *(number % 2**64 for number in numbers))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
    return plain[:-22] + record + locator + end[:8] + b"\xff" * 12 + end[20:]


def deflated(content: bytes) -> bytes:
    """The raw stream, as zips hold it."""
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(content) + packer.flush()


@cache
def bomb(method: int) -> bytes:
    """A small stream that inflates to HUGE."""
    if method == DEFLATED:
        packer = zlib.compressobj(9, wbits=-15)
        return b"".join(packer.compress(bytes(2**20)) for _ in range(HUGE >> 20)) + packer.flush()
    if method == BZIP2:
        packed = bz2.BZ2Compressor()
        return b"".join(packed.compress(bytes(2**20)) for _ in range(HUGE >> 20)) + packed.flush()
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 0}]
    squeezed = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    stream = b"".join(squeezed.compress(bytes(2**20)) for _ in range(HUGE >> 20)) + squeezed.flush()
    properties = lzma._encode_filter_properties(filters[0])  # type: ignore[attr-defined] # as zipfile does
    return struct.pack("<BBH", 9, 4, len(properties)) + properties + stream


NAMES = (
    b"../../escaped.png",
    b"train/a/../../../escaped.png",
    b"/tmp/escaped.png",
    b"//server/share/escaped.png",
    b"train\\a\\back.png",
    b"..\\..\\escaped.png",
    b"C:\\escaped.png",
    b"C:/train/a/drive.png",
    b"train/a/nul\x00.png",
    b"train/\x00a/nul.png",
    b"train/a/line\nbreak.png",
    b"train/a\nerror: b/1.png",
    b"train/\x1b[2J\x1b[31m/1.png",
    b"train/a/\x1b]0;title\x07.png",
    b"train/a/\xc2\x9b31m.png",
    b"train/\xe2\x80\xaegnp/1.png",
    b"train/a/",
    b"train/a",
    b"train/a.png/1.png",
    b"train//1.png",
    b"/train/a/1.png",
    b"./train/a/1.png",
    b"train/./a/1.png",
    b"train/a/CON.png",
    b"train/.hidden/1.png",
    b"__MACOSX/train/a/1.png",
    b"val/stranger/1.png",
    b"train/" + b"x" * 60_000 + b"/1.png",
    b"d/" * 30_000 + b"1.png",
    b"train/" + b"d/" * 30_000 + b"1.png",
    b"words.txt",
    b"val/val_annotations.txt",
    b"",
    b"/",
    b".png",
)


def pictures_of(content: bytes) -> list[Member]:
    """The members of an honest zip, deflated anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [Member(name.encode(), deflated(archive.read(name)), DEFLATED) for name in archive.namelist()]


def biting(content: bytes, rng: random.Random) -> bytes:
    """The honest zip `content` with something in it that bites: which, is the case's."""
    return rng.choice(BITES)(pictures_of(content), rng)


def _odd_names(members: list[Member], rng: random.Random) -> bytes:
    flags = rng.choice((0, 0x800))
    odd = [replace(rng.choice(members), name=name, flags=flags) for name in rng.sample(NAMES, rng.choice((1, 3)))]
    if rng.random() < 0.3:
        odd.append(replace(rng.choice(members), name=b"train/a/\xff\xfe\xed\xa0\x80.png", flags=flags))
    return written(odd + members if rng.random() < 0.5 else members + odd)


def _links(members: list[Member], rng: random.Random) -> bytes:
    where = rng.choice((b"/etc/passwd", b"../../../../etc/passwd", b"1.png", b"."))
    name = rng.choice((members[0].name, b"train/link", b"train/link.png", b"train"))
    return written([*members, Member(name, where, attributes=SYMLINK)])


def _twice(members: list[Member], rng: random.Random) -> bytes:
    again = rng.choice(members)
    other = Member(again.name, rng.choice((b"", b"no picture", again.content)), rng.choice((STORED, again.method)))
    return written([*members, *[other] * rng.choice((1, 2, 50))])


def _lying_bomb(members: list[Member], rng: random.Random) -> bytes:
    method = rng.choice((DEFLATED, BZIP2, LZMA))
    size = rng.choice((1, 100, 10_000, 2**20))
    flags = 0x802 if method == LZMA else 0x800
    return written(
        [replace(members[0], content=bomb(method), method=method, size=size, crc=0, flags=flags), *members[1:]]
    )


def _honest_bomb(members: list[Member], rng: random.Random) -> bytes:
    method = rng.choice((DEFLATED, BZIP2, LZMA))
    size = rng.choice((HUGE, 255 * 2**20, 2**32 - 2))
    flags = 0x802 if method == LZMA else 0x800
    name = rng.choice((members[0].name, b"words.txt", b"val/val_annotations.txt"))
    return written(
        [replace(members[0], name=name, content=bomb(method), method=method, size=size, crc=0, flags=flags), *members]
    )


def _overlapping(members: list[Member], rng: random.Random) -> bytes:
    """Many entries of the directory for one and the same stream, as the bombs that need no nesting do."""
    whole = [replace(members[0], name=b"train/a/%d.png" % at, offset=0) for at in range(rng.choice((5, 200)))]
    return written([*members, *whole])


def _nested(members: list[Member], rng: random.Random) -> bytes:
    inner = written(members)
    for _ in range(rng.choice((1, 5))):
        inner = written([*members, Member(rng.choice((b"data.zip", b"train/a/data.png")), inner)])
    return inner


def _many(members: list[Member], rng: random.Random) -> bytes:
    end = rng.choice((b"/", b".txt", b".png"))
    count = 800 if end == b".png" else 100_000
    return written([*members, *(Member(b"train/a/%d%s" % (at, end), b"", crc=0, size=0) for at in range(count))])


def _locked(members: list[Member], rng: random.Random) -> bytes:
    locked = [replace(member, flags=member.flags | rng.choice((1, 0x41))) for member in members]
    return written(locked if rng.random() < 0.5 else [locked[0], *members[1:]])


def _absurd_counts(members: list[Member], rng: random.Random) -> bytes:
    kind = rng.randrange(3)
    if kind == 0:
        return written(members, count=rng.choice((0, 1, 0xFFFE, 0xFFFF)))
    if kind == 1:
        numbers = [rng.choice((0, 1, 2**16, 2**31, 2**32, 2**62, 2**63, 2**64 - 1)) for _ in range(4)]
        return with_zip64_end(members, numbers)
    extra = struct.pack("<2H", 1, rng.choice((0, 8, 24, 65_000))) + rng.randbytes(rng.choice((0, 8, 24)))
    return written([replace(members[0], extra=extra, size=0xFFFFFFFF), *members[1:]])


def _lies(members: list[Member], rng: random.Random) -> bytes:
    lie = rng.choice(
        (
            {"crc": 1},
            {"size": 0},
            {"size": 1},
            {"size": 2**31},
            {"method": 99},
            {"method": 97},
            {"method": 9},
            {"method": 1},
            {"method": STORED},
            {"offset": 2**32 - 2},
            {"offset": 3},
            {"flags": 0x808},
            {"flags": 0x820},
            {"content": b""},
        )
    )
    everyone = rng.random() < 0.3
    return written([replace(member, **lie) if everyone or not at else member for at, member in enumerate(members)])


BITES: tuple[Callable[[list[Member], random.Random], bytes], ...] = (
    _odd_names,
    _odd_names,
    _odd_names,
    _links,
    _twice,
    _lying_bomb,
    _honest_bomb,
    _overlapping,
    _nested,
    _many,
    _locked,
    _absurd_counts,
    _absurd_counts,
    _lies,
    _lies,
)
