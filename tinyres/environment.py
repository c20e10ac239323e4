"""What machine and which versions made a result: recorded with every run, certificate and measurement.

It names no host, user or path, and imports no framework: versions come from the installed packages' metadata.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tinyres.errors import UsageError

PACKAGES = (
    "tinyres",
    "numpy",
    "pillow",
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
)
INSTRUCTION_SETS = (
    "sse4_2",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_bf16",
    "amx_int8",
    "asimd",
)
"""The ones that change how fast, or with what arithmetic, a network runs."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A machine and its software, as far as they change results or speed."""

    os: str
    machine: str
    python: str
    cpu: str
    instruction_sets: tuple[str, ...]
    cores: int
    """Usable by this process."""
    memory_bytes: int | None
    gpu: str | None
    """The first CUDA device, as torch sees it, or the driver's own program where torch is not loaded."""
    packages: dict[str, str]


def capture() -> Environment:
    """Describe this machine and process."""
    cpu, flags = _cpu()
    return Environment(
        os=platform.system(),
        machine=platform.machine(),
        python=platform.python_version(),
        cpu=cpu,
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        cores=usable_cores(),
        memory_bytes=_memory_bytes(),
        gpu=_gpu(),
        packages=versions(),
    )


def versions() -> dict[str, str]:
    """The installed version of each package that shapes results; absent ones are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def command_line() -> str:
    """The command as typed, without the folders of this machine."""
    return " ".join(["tinyres", *(re.sub(rf"(^|=)(?:[/~]|{_DRIVE}).*[/\\]", r"\1", word) for word in sys.argv[1:])])


def without_folders(text: str) -> str:
    """A message without the folders of this machine: names of files alone."""
    text = re.sub(rf"(?<!\w){_DRIVE}(?:[^\\/:*?\"'<>|\n]*[^\\/:*?\"'<>|\s][\\/]+)*", "", text)
    return re.sub(r"(?<![\w.:/])[/~](?:[^\s/:'\"]+/)+", "", text)


_DRIVE = r"(?:[A-Za-z]:[\\/]+|\\\\+)"
"""How a path begins on Windows, as it is or as Python shows it."""


def usable_cores() -> int:
    """The cores this process may run on (a container or taskset may allow fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_for(threads: int) -> list[int]:
    """Cores to keep a process with so many threads on, one of each physical core first; empty if there is no telling.

    Two threads on the halves of one core are no two cores, and which ones a system would pick differs from run to run.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    usable = os.sched_getaffinity(0)
    ordered = sorted(usable, key=lambda core: (core != min(_siblings(core) & usable), core))
    return sorted(ordered[:threads])


def _siblings(core: int) -> set[int]:
    """The hardware threads of a core's physical core, itself among them."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    found = {core}
    try:
        for part in path.read_text(encoding="ascii").strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        pass
    return found


def _cpu() -> tuple[str, frozenset[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown", frozenset()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name", "unknown"), frozenset(flags.split())


def _memory_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    if torch is None:
        return _gpu_by_driver()
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name} (sm_{properties.major}{properties.minor}, CUDA {torch.version.cuda})"


def _gpu_by_driver() -> str | None:
    """As the driver's own program says, where nothing that knows is loaded."""
    if (program := shutil.which("nvidia-smi")) is None:
        return None
    asked = [program, "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(asked, capture_output=True, encoding="utf-8", timeout=10, check=True).stdout
        name, capability, driver = (word.strip() for word in answer.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return f"{name} (sm_{capability.replace('.', '')}, driver {driver})"


def process_count() -> int:
    """How many processes train together: what torchrun says in WORLD_SIZE, else 1."""
    return _number("WORLD_SIZE", 1)


def process_rank() -> int:
    """Which of them this one is; 0 writes and speaks."""
    return _number("RANK", 0)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise UsageError(f"{name} is {text!r} in the environment; valid: what torchrun sets")
    return int(text)
