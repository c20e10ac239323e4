"""The fields of a serialized protobuf message, read without the protobuf package and without a copy."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

Message: TypeAlias = "bytes | memoryview | mmap.mmap"

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(message: Message, wanted: Collection[int]) -> Iterator[tuple[int, Message]]:
    """The number and content of each wanted field that holds bytes; all else, the weights say, is passed over.

    Errors: ValueError or IndexError if it is no such message.
    """
    for number, value in _all(message):
        if number in wanted and not isinstance(value, int):
            yield number, message[value]


def numbers(message: Message, wanted: Collection[int]) -> Iterator[int]:
    """The integers in the wanted fields, packed or one by one. Errors: as `fields`."""
    for number, value in _all(message):
        if number not in wanted:
            continue
        if isinstance(value, int):
            yield _signed(value)
            continue
        at = value.start
        while at < value.stop:
            packed, at = _varint(message, at)
            yield _signed(packed)


def _all(message: Message) -> Iterator[tuple[int, int | slice]]:
    """Each field's number with its integer, or where its bytes lie; fields of fixed width are passed over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if key >= 1 << 32 or not number:
            raise ValueError("it is no protobuf message")
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif kind == BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("it is cut short")
            yield number, slice(at, at + size)
            at += size
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
        else:
            raise ValueError("it is no protobuf message")
    if at != len(message):
        raise ValueError("it is cut short")


def _varint(message: Message, at: int) -> tuple[int, int]:
    """A number in 7-bit groups, and where it ends."""
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("it is no protobuf message")


def _signed(value: int) -> int:
    """As an int64 is stored."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
