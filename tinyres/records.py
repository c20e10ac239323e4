"""Facts kept as JSON: frozen dataclasses written to text and read back with every field checked.

Files may come from strangers or from another version: what is read is validated against the type, and what does not
fit is an error that names the file and the field, never a half-filled record.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tinyres.errors import InputError, UsageError
from tinyres.files import read_whole, write_text
from tinyres.harmless import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import TypeAdapter

T = TypeVar("T")

_NUMBERS = re.compile(r"\[\n\s+(-?[0-9][-+0-9.eE,\s]*?)\n\s+\]")

MAX_RECORD_BYTES = 64 * 2**20
"""Larger JSON is refused before it is parsed; a bench with raw samples is a few MiB."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def to_json(record: object, *, indent: int | None = 2) -> str:
    """A dataclass (or a plain value) as JSON text; fields in their declared order, so equal records give equal text."""
    value = dataclasses.asdict(record) if dataclasses.is_dataclass(record) and not isinstance(record, type) else record
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=_plain)
    # Thousands of samples on as many lines serve no one. A line break within a string is escaped, so none is touched.
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def from_json(kind: type[T], text: str | bytes, *, source: str, error: type[InputError] = InputError) -> T:
    """Read a `kind` from JSON `text`; `source` names where it came from in the error.

    Errors: `error` for text that is no JSON, or whose fields do not fit the type or are no finite numbers.
    """
    from pydantic import ValidationError

    try:
        record: T = _adapter(cast("Any", kind)).validate_json(text)
    except UsageError as exc:  # a value that the record's own checks refuse
        raise error(f"{source} is damaged or of another kind: {exc}") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        place = _where(first["loc"])
        if first["type"] == "json_invalid":
            raise error(f"{source} is not JSON: it is damaged or of another kind") from exc
        raise error(f"{source} is damaged or of another kind: {place or 'its kind'}: {first['msg']}") from exc
    for where in _not_finite(record, ()):
        raise error(f"{source} is damaged or of another kind: {_where(where) or 'it'} is no finite number")
    return record


def _where(place: tuple[object, ...]) -> str:
    """Where in a record something is; keys may be a stranger's."""
    text = ".".join(map(str, place))
    return shown(text[:100])


def _not_finite(value: object, place: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
    """The places of NaN and infinities: the parser takes them, `1e999` too, and no record can be written with them."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield place
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _not_finite(getattr(value, field.name), (*place, field.name))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, (*place, key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            if not isinstance(inner, (int, str)):
                yield from _not_finite(inner, (*place, index))


def parse(text: str | bytes, *, source: str, error: type[InputError] = InputError) -> Any:
    """The values of any JSON `text`, checked against nothing. Errors: `error` if it is none, or nested without end."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise error(f"{source} is not JSON: it is damaged or of another kind") from exc


def save(path: Path, record: object) -> None:
    """Write `record` as JSON to `path`, atomically."""
    write_text(path, to_json(record) + "\n")


def load(kind: type[T], path: Path, *, error: type[InputError] = InputError) -> T:
    """Read a `kind` from the JSON file `path`. Errors: `error` if it is absent, too large or does not fit."""
    content = read_whole(path, MAX_RECORD_BYTES, error=error)
    return from_json(kind, content, source=str(path), error=error)


def load_any(path: Path, *, error: type[InputError] = InputError) -> Any:
    """The values of any JSON file. Errors: as `load`, for what is no JSON."""
    return parse(read_whole(path, MAX_RECORD_BYTES, error=error), source=str(path), error=error)
