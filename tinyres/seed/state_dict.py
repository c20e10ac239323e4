"""A state dict as torch.save writes it, read without an unpickler: nothing that a stranger's file names is called.

PyTorch's own reader makes whatever the file asks for even when told to take weights only: a bytearray of any length,
or a thousand copies of one dict. The few instructions that a state dict needs are followed here by hand instead, and
one zip reader alone sees the file, so what is checked is what is read, and memory grows with the file only.
"""

from __future__ import annotations

import io
import math
import pickletools
import sys
import zipfile
from dataclasses import dataclass
from typing import Any

MOST_PICKLE_BYTES = 2**20
"""Of the names and shapes alone; 254 tensors take 30 kB."""
MOST_MEMBERS = 20_000
"""zipfile makes an object of half a kB for each, before they can be looked at."""
MOST_DIMENSIONS = 4
"""Of a tensor: those of a convolution's weight."""
OLD_FORM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""What torch.save begins a file with that is no zip."""
ITEM_BYTES = {"Half": 2, "BFloat16": 2, "Float": 4, "Double": 8, "Long": 8}
"""A number of each kind that a weight may have, as torch names its storages."""
_KINDS = {f"torch {kind}Storage": kind for kind in ITEM_BYTES}
_CALLABLE = ("collections OrderedDict", "torch._utils _rebuild_parameter", "torch._utils _rebuild_tensor_v2")
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ARGUMENTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}


class PthError(ValueError):
    """Why a file is not taken, as what follows a colon."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A function or class that the pickle names: a word, and nothing to call."""

    text: str


@dataclass(frozen=True, slots=True)
class Storage:
    """A member that numbers are in."""

    key: str
    kind: str
    """Of `ITEM_BYTES`."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What the pickle says of a tensor."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def claimed(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.storage.kind]


@dataclass(frozen=True, slots=True)
class Pth:
    """A file's description of a state dict, and its numbers."""

    state: object
    """Dicts, tuples and plain values, with a `Weight` for each tensor."""
    storages: dict[str, bytearray]


def read_pth(content: bytes) -> Pth:
    """What a `.pth` holds, within a few times its size.

    Errors: PthError, and whatever zipfile and pickletools raise on what is none.
    """
    if content.count(b"PK\x01\x02") > MOST_MEMBERS:
        raise PthError("it has too many members")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root = _checked_root(archive, content)
        state = _follow(archive.read(f"{root}data.pkl"))
        weights = state.values() if isinstance(state, dict) else ()
        keys = {weight.storage.key for weight in weights if isinstance(weight, Weight)}
        return Pth(state, {key: bytearray(archive.read(f"{root}data/{key}")) for key in keys})


def _checked_root(archive: zipfile.ZipFile, content: bytes) -> str:
    """The folder in the zip that all is in; its members take no more memory than the file."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise PthError("it is packed, which torch.save never does")
    if sum(member.file_size for member in members) > len(content):
        raise PthError("its members claim more bytes than it has")
    if len({member.filename for member in members}) < len(members):
        raise PthError("two of its members have one name")
    pickles = [member for member in members if member.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise PthError(f"it has {len(pickles)} members */data.pkl")
    if pickles[0].file_size > MOST_PICKLE_BYTES:
        raise PthError(f"its data.pkl is larger than {MOST_PICKLE_BYTES:,} bytes")
    root = pickles[0].filename.removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order).decode() != sys.byteorder:
        raise PthError(f"its numbers are not in this machine's byte order, {sys.byteorder}-endian")
    return root


def _follow(pickled: bytes) -> object:
    """What the pickle describes, of dicts, tuples, plain values and `Weight`s."""
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(pickled):
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The part of a pickle's stack machine that a state dict needs; whatever else one can do is refused."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "SETITEM":
                item = self._since(len(stack) - 2)
                _put(stack[-1], item)
            case "SETITEMS":
                items = self._since(self.marks.pop())
                _put(stack[-1], items)
            case "BUILD":  # state_dict() keeps the versions of the modules as an attribute
                stack.pop()
            case _:
                stack.append(self._made(name, argument))

    def _made(self, name: str, argument: Any) -> object:
        """What an instruction leaves on the stack."""
        made: object = argument
        match name:
            case "BINGET" | "LONG_BINGET":
                made = self.memo[argument]
            case "EMPTY_DICT":
                made = {}
            case "TUPLE":
                made = tuple(self._since(self.marks.pop()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                made = tuple(self._since(len(self.stack) - int(name[-1])))
            case "GLOBAL":
                made = _name(argument)
            case "BINPERSID":
                made = _storage(self.stack.pop())
            case "REDUCE":
                made = _called(*self._since(len(self.stack) - 2))
            case _ if name in _CONSTANTS:
                made = _CONSTANTS[name]
            case _ if name not in _ARGUMENTS:
                raise PthError(f"it holds more than a dict of tensors, by the instruction {name}")
        return made

    def _since(self, first: int) -> list[Any]:
        items = self.stack[first:]
        del self.stack[first:]
        return items


def _name(text: str) -> _Name:
    if text not in _KINDS and text not in _CALLABLE:
        raise PthError(f"it names {text.replace(' ', '.')[:99]!r}")
    return _Name(text)


def _put(target: object, items: list[Any]) -> None:
    if not isinstance(target, dict) or not all(isinstance(key, str) for key in items[::2]):
        raise PthError("it has names that are no text")
    target.update(zip(items[::2], items[1::2], strict=True))


def _called(function: object, arguments: object) -> object:
    match function, arguments:
        case _Name(text="collections OrderedDict"), ():
            return {}
        case _Name(text="torch._utils _rebuild_parameter"), (Weight() as weight, _, _):
            return weight
        case (
            _Name(text="torch._utils _rebuild_tensor_v2"),
            (Storage() as storage, int(offset), tuple(shape), tuple(strides), _, _),
        ):
            # Thousands of tensors may share one shape, and the numbers of a pickle have no end.
            few = len(shape) == len(strides) <= MOST_DIMENSIONS
            if few and all(type(number) is int and 0 <= number < 2**48 for number in (offset, *shape, *strides)):
                return Weight(storage, offset, shape, strides)
    raise PthError("it has a tensor of no plain shape, or what is none")


def _storage(told: object) -> Storage:
    match told:
        case ("storage", _Name(text=name), str(key), str(), int()) if name in _KINDS:
            return Storage(key, _KINDS[name])
    raise PthError("it has a storage of another form than torch.save's")
