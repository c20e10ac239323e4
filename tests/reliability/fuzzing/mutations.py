"""Ways to damage a file: its bytes, or what its format means by them, the rest left as it was."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Damage = Callable[[bytes, random.Random], bytes]

NUMBERS = (b"-1", b"0", b"1e999", b"99999999999999999999", b"NaN", b"null", b'"x"', b"[]", b"{}")
INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
ODD_TEXTS = (
    "",
    " ",
    ".",
    "..",
    "../../x",
    "a\nb",
    "a\r\nerror: b",
    "\x00",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m\x85",
    "\u202egnp.exe",
    "\u2028",
    "\ufeff",
    "\U0001f600",
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "a|b",
    "=1+1",
    "%s%n{0}{x}",
    "²",
    "9" * 5000,
    "x" * 70_000,
)
"""Text that a terminal, a page, a table, a file system or a format string may take for more than text."""
ODD_JSON = (
    *NUMBERS,
    *(json.dumps(text).encode() for text in ODD_TEXTS),
    b"true",
    b"-0.0",
    b"0.5",
    b"1e-400",
    b"1e308",
    b"9007199254740993",
    b"9" * 400,
    b"9" * 5000,
    b"Infinity",
    b"-Infinity",
    b"[null]",
    b"[[]]",
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'"\\ud800"',
    b'"\xff\xfe"',
    b'"' + b"y" * 1_000_000 + b'"',
)


def by_bytes(content: bytes, rng: random.Random) -> bytes:
    """`content` with one to four changes of the kinds that broken disks, transfers and ill will make."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        span = min(rng.choice((1, 2, 4, 8, 64, 4096)), len(data) - at)
        kind = rng.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at : at + span] = rng.randbytes(span)
        elif kind == 2:
            del data[at : at + span]
        elif kind == 3:
            data[at:at] = data[at : at + span] * rng.choice((1, 2, 50))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at : at + span] = bytes(span)
        elif kind == 6:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(INTEGERS) % 2 ** (8 * width)
            data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 7:
            digits = [spot for spot in range(at, min(at + 400, len(data))) if 48 <= data[spot] <= 57]
            if digits:
                data[digits[0] : digits[0] + 1] = rng.choice(NUMBERS)
        else:
            data[at:at] = rng.randbytes(rng.choice((1, 16, 1000)))
    return bytes(data)


def either(*ways: Damage) -> Damage:
    """One of them, by the case."""
    return lambda content, rng: rng.choice(ways)(content, rng)


def by_lines(content: bytes, rng: random.Random) -> bytes:
    """A text whose lines are doubled, left out, emptied, swapped or made odd."""
    lines = content.split(b"\n")
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(lines))
        odd = rng.choice(ODD_TEXTS).encode(errors="surrogatepass")
        kind = rng.randrange(6)
        if kind == 0:
            lines.insert(at, lines[at])
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif kind == 2:
            lines[at] = odd
        elif kind == 3:
            lines[at] += rng.choice((b"\t", b"\xff", b"\x00", b"\r")) + odd
        elif kind == 4:
            lines[at] = lines[at][::-1]
        else:
            lines[at:at] = [b"line"] * rng.choice((1, 300))
    return b"\n".join(lines)


class _Raw:
    """Stands for bytes that `json` would not write, until it has written the rest."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def __call__(self, content: bytes) -> str:
        self.kept.append(content)
        return f"raw-{len(self.kept) - 1}-war"

    def settled(self, text: str) -> bytes:
        content = text.encode()
        return re.sub(rb'"raw-(\d+)-war"', lambda found: self.kept[int(found[1])], content)


def by_json(content: bytes, rng: random.Random) -> bytes:
    """JSON with one to three nodes replaced, left out, doubled, of another type or under another name."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return by_bytes(content, rng)
    raw = _Raw()
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = _changed(tree, rng, raw)
    return raw.settled(json.dumps(tree))


def _changed(node: Any, rng: random.Random, raw: _Raw) -> Any:
    """The tree with a node of it changed: one near the root as likely as one far down."""
    if isinstance(node, (dict, list)) and node and rng.random() < 0.9:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        kind = rng.randrange(12)
        if kind == 0:
            node.pop(key)
        elif kind == 1 and isinstance(node, list):
            node[key:key] = [node[key]] * rng.choice((1, 2, 50))
        elif kind == 1 and isinstance(node, dict):
            node[raw(json.dumps(key).encode())] = raw(rng.choice(ODD_JSON))  # the same name twice in one object
        elif kind == 2 and isinstance(node, dict):
            odd = rng.choice((json.dumps(rng.choice(ODD_TEXTS)).encode(), b'"\\ud800"', b'"\xff"'))
            node[raw(odd)] = node.pop(key)
        elif kind == 3:
            node[key] = rng.choice(list(node.values()) if isinstance(node, dict) else node)
        else:
            node[key] = _changed(node[key], rng, raw)
        return node
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice((str(node), [node], {"value": node}, None, not node))
    if kind == 1 and isinstance(node, (int, float)):
        return rng.choice((-node, node + 0.5, 0, node * 10**6, 2**63, -1))
    return raw(rng.choice(ODD_JSON))


WHOLE = (-1, 0, 1, 2, 3, 1000, 2**31, 2**53 + 1, 2**63, 2**200, -(2**63))
REAL = (-1.0, -0.0, 0.0, 5e-324, 1e-9, 0.5, 1.0, 1.5, 1e9, 1e300, 1.7976931348623157e308)


def by_values(content: bytes, rng: random.Random) -> bytes:
    """JSON with one to three values replaced by odd ones of the same type, lists emptied, cut or doubled."""
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = _odder(tree, rng)
    return json.dumps(tree).encode()


def _odder(node: Any, rng: random.Random) -> Any:
    if isinstance(node, list) and (not node or rng.random() < 0.3):
        return rng.choice(([], node[:1], node * 2, node[::-1], node[1:]))
    if isinstance(node, (dict, list)) and node:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node[key] = _odder(node[key], rng)
        return node
    if isinstance(node, bool):
        return not node
    if isinstance(node, int):
        return rng.choice(WHOLE)
    if isinstance(node, float):
        return rng.choice(REAL)
    return rng.choice((None, *ODD_TEXTS)) if isinstance(node, str) else node


ODD_TYPES = ("|O", "<f4", ">f8", "|V8", "<U1000000000", "|S0", "<M8[ns]", "|u1", "<i8", "nonsense", "(2,)f4", "<c16")
ODD_SHAPES: tuple[object, ...] = (
    (),
    (0,),
    (-1,),
    (-1, 3),
    (10**12,),
    (2**62, 4),
    (2**63,),
    (2**64, 2**64),
    (1,) * 100,
    (True,),
    ("a",),
    (1.5,),
    [4],
    "x",
    None,
)


def by_array_header(content: bytes, rng: random.Random) -> bytes:
    """An .npy whose header claims what its bytes are not."""
    if content[:6] != b"\x93NUMPY":
        return by_bytes(content, rng)
    width = 2 if content[6] == 1 else 4
    length = int.from_bytes(content[8 : 8 + width], "little")
    header = content[8 + width : 8 + width + length].decode("latin1")
    if rng.random() < 0.5:
        header = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {rng.choice(ODD_TYPES)!r}", header)
    if rng.random() < 0.7:
        header = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {rng.choice(ODD_SHAPES)!r}", header)
    if rng.random() < 0.2:
        header = header.replace("False", rng.choice(("True", "None", "__import__('os')", "(" * 400)))
    claimed = len(header) if rng.random() < 0.8 else rng.choice(INTEGERS) % 2 ** (8 * width)
    version = content[6:8] if rng.random() < 0.9 else rng.randbytes(2)
    start = content[:6] + version + claimed.to_bytes(width, "little")
    return start + header.encode("latin1") + content[8 + width + length :]


def by_arrays(content: bytes, rng: random.Random) -> bytes:
    """An .npz with the header of one array damaged, an array left out, doubled, renamed or of pickled objects."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(arrays))
    kind = rng.randrange(6)
    if kind == 0:
        arrays.pop(name)
    elif kind == 1:
        arrays["odd.npy"] = arrays.pop(name)
    elif kind == 2:
        arrays[name] = arrays[rng.choice(list(arrays))]
    elif kind == 3:
        arrays[name] = b"\x80\x04c__builtin__\nprint\n."  # a pickle, which nothing may load
    else:
        arrays[name] = by_array_header(arrays[name], rng)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))) as archive:
        for name, array in arrays.items():
            archive.writestr(name, array)
    return written.getvalue()


def by_tensor_header(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header claims other shapes, types and places, or whose own record is damaged."""
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length]
    kind = rng.randrange(4)
    if kind == 0:
        tree = json.loads(header)
        key, text = next(iter(tree["__metadata__"].items()))
        tree["__metadata__"][key] = by_json(text.encode(), rng).decode("latin1")
        header = json.dumps(tree).encode()
    elif kind == 1:
        tree = json.loads(header)
        one, other = rng.choices([name for name in tree if name != "__metadata__"], k=2)
        start, end = tree[one]["data_offsets"]
        spans = [[end, start], [start - 1, end], [0, 2**63], tree[other]["data_offsets"], [-8, 0], [start, end + 8]]
        tree[one]["data_offsets"] = rng.choice(spans)
        header = json.dumps(tree).encode()
    else:
        header = by_json(header, rng)
    claimed = len(header) if rng.random() < 0.9 else rng.choice(INTEGERS)
    return struct.pack("<Q", claimed) + header + content[8 + length :]


METADATA_PROPS = 14
"""In onnx.proto's ModelProto."""


def by_model_metadata(content: bytes, rng: random.Random) -> bytes:
    """An ONNX file with the JSON of its metadata damaged, doubled or renamed, or a length that lies."""
    fields = list(_fields(content))
    spot, entry = next((at, field) for at, field in enumerate(fields) if field[0] >> 3 == METADATA_PROPS)
    pair = list(_fields(entry[1]))
    key, value = pair[0][1], pair[1][1]
    kind = rng.randrange(6)
    if kind == 0:
        lying = rng.randrange(len(fields))
        return b"".join(
            _field(number, body, rng.choice(INTEGERS) if at == lying and number & 7 == 2 else None)
            for at, (number, body) in enumerate(fields)
        )
    if kind == 1:
        key = rng.choice((b"", b"\xff", b"Tinyres", key * 2))
    else:
        value = by_json(value, rng)
    damaged = (entry[0], _field(0x0A, key) + _field(0x12, value))
    fields[spot] = damaged
    if kind == 2:
        fields.insert(rng.randrange(len(fields) + 1), entry)
    return b"".join(_field(number, body) for number, body in fields)


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """The keys (number and wire type) and bodies of a message's fields; a number's body is its own bytes."""
    found, at = [], 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 2:
            length, at = _varint(message, at)
            found.append((key, message[at : at + length]))
            at += length
        else:
            start = at
            _, at = _varint(message, at)
            found.append((key, message[start:at]))
    return found


def _field(key: int, body: bytes, claimed: int | None = None) -> bytes:
    length = _packed(len(body) if claimed is None else claimed) if key & 7 == 2 else b""
    return _packed(key) + length + body


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at


def _packed(value: int) -> bytes:
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127)
    return bytes(group | 128 for group in groups[:-1]) + bytes(groups[-1:])
