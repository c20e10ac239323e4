"""TensorRT and TensorRT for RTX as libraries: which one is here, how it speaks, and what its versions do differently.

Building (tinyres.export.tensorrt) and running (tensorrt.py beside this) both start here. Values of enums change between
versions and are always taken from the library, by name.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tinyres.errors import BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

Name = Literal["tensorrt", "tensorrt-rtx"]
MODULES: dict[Name, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
EXTRAS: dict[Name, str] = {"tensorrt": "trt", "tensorrt-rtx": "rtx"}

TYPED_SINCE = 10
"""Before, a network's types are wishes, and flags of the builder decide."""
ONLY_TYPED_SINCE = 11
"""From then on there is no other kind of network, and no flag to ask for one."""
OLDEST = (8, 6)


@dataclass(slots=True)
class Messages:
    """What the library said. It logs its errors instead of raising them."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take_error(self) -> str:
        """The first line of the first error since the last call; empty if there was none."""
        first = self.errors[0].strip().splitlines()[0][:300] if self.errors else ""
        self.errors.clear()
        return first


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two, at the version that is installed."""

    name: Name
    module: Any
    logger: Any
    """An ILogger of the module's own, which fills `messages`; it must live as long as what was made with it."""
    messages: Messages

    @property
    def version(self) -> str:
        """All of it: an engine fits one patch version."""
        return str(self.module.__version__)

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def is_rtx(self) -> bool:
        """Whether this is the library for RTX GPUs, which counts its versions anew."""
        return self.name == "tensorrt-rtx"

    @property
    def is_typed(self) -> bool:
        """Whether the types in the ONNX file are what is computed with."""
        return self.is_rtx or self.release[0] >= TYPED_SINCE

    def network_flags(self) -> int:
        """For create_network: a network with a free batch, typed where the version knows that."""
        flags = self.module.NetworkDefinitionCreationFlag
        if self.is_rtx or self.release[0] >= ONLY_TYPED_SINCE:
            return 0
        return 1 << int(flags.STRONGLY_TYPED if self.is_typed else flags.EXPLICIT_BATCH)

    def largest_opset(self) -> int | None:
        """Of ONNX, where the version's parser knows fewer than we write; None for no bound."""
        return None if self.is_typed else 17

    def type_name(self, dtype: Any) -> str:
        """What we call one of the library's data types: fp32, fp16, bf16, int8, ..."""
        names = {"FLOAT": "fp32", "HALF": "fp16"}
        return names.get(dtype.name, str(dtype.name).lower())


def load(name: Name) -> Library:
    """Import a library. Errors: BackendUnavailable if it is not installed, does not load or is too old."""
    module_name = MODULES[name]
    try:
        module = importlib.import_module(module_name)
    except Exception as exc:  # of a stub on the index, whose libraries could not be fetched: anything
        if isinstance(exc, ModuleNotFoundError) and exc.name == module_name:
            hint = f"pip install 'tinyres[{EXTRAS[name]}]'"
            raise BackendUnavailable(f"{name} is not installed here", hint=hint) from exc
        raise BackendUnavailable(f"{name} is installed but does not load: {exc}") from exc
    if not hasattr(module, "Builder"):
        raise BackendUnavailable(
            f"{name} is installed without its libraries",
            hint=f"pip install --force-reinstall 'tinyres[{EXTRAS[name]}]'",
        )
    library = wrap(name, module)
    if not library.is_rtx and library.release < OLDEST:
        raise BackendUnavailable(f"{name} {library.version} is too old", hint="valid: 8.6 or newer")
    return library


def wrap(name: Name, module: Any) -> Library:
    """A library around an imported module."""
    messages = Messages()
    serious = {"ERROR", "INTERNAL_ERROR"}

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity.name in serious:
                messages.errors.append(message)
            elif severity.name == "WARNING":
                messages.warnings.append(message)

    return Library(name, module, Log(), messages)


def installed() -> Iterable[Name]:
    """The libraries that can be found here, without importing them."""
    return [name for name, module in MODULES.items() if importlib.util.find_spec(module) is not None]
