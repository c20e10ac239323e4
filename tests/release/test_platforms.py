"""Nothing that is written here works on one system alone: sources, names of files, what tinyres writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY
from platform_lint import findings, is_usable_name
from tiny import TrainedRun

from tinyres.export.artifact import Exported

SOURCES = [
    path for top in ("tinyres", "export", "bench", "weights", "embed") for path in (REPOSITORY / top).rglob("*.py")
]
EXEMPT = {
    ("tinyres/data/cache.py", "newline"): "the journal of decoded chunks is read with the line ends of every system",
}

PLANTED = {
    "import os\nos.fork()": "absent",
    "import os as o\no.setsid()": "absent",
    "from os import getuid": "absent",
    "import os\nn = len(os.sched_getaffinity(0))": "absent",
    "import os\nos.posix_fallocate(1, 0, 9)": "absent",
    "import os\nflag = os.O_RDONLY | os.O_DIRECTORY": "absent",
    "import signal\nsignal.signal(signal.SIGALRM, print)": "absent",
    "import signal\nif code == -signal.SIGKILL: pass": "absent",
    "import signal\nsignal.setitimer(0, 1)": "absent",
    "import select\nselect.poll()": "absent",
    "import time\ntime.clock_gettime(1)": "absent",
    "import socket\nsocket.socket(socket.AF_UNIX)": "absent",
    "import resource": "absent",
    "from fcntl import flock": "absent",
    "import os, sys\nif sys.platform == 'win32':\n    os.fork()": "absent",  # the wrong way round
    "import os\nif not hasattr(os, 'fork'):\n    os.fork()": "absent",
    "import os\ntry:\n    os.fork()\nexcept OSError:\n    pass": "absent",  # what is not there is no OSError
    "import os\ntry:\n    def start():\n        os.fork()\nexcept AttributeError:\n    pass": "absent",
    "import os\ndef f():\n    if not hasattr(os, 'fork'):\n        print()\n    os.fork()": "absent",  # goes on
    "import os, sys\nif sys.platform != 'win32':\n    os.sched_getaffinity(0)": "absent",  # macOS lacks it as well
    "try:\n    import resource\nexcept ImportError:\n    resource = None\nresource.getrusage(0)": "absent",
    "def f():\n    try:\n        import fcntl\n    except ImportError:\n        print()\n    fcntl.flock(0)": "absent",
    "from pathlib import Path\ntext = Path('/proc/cpuinfo').read_bytes()": "path",
    "def f(n):\n    return open(f'/proc/{n}/stat', 'rb')": "path",
    "import os\nhandle = os.open('/dev/null', os.O_WRONLY)": "path",
    "folder = '/tmp/cache'": "path",
    "try:\n    open('/tmp/x', 'rb')\nexcept OSError:\n    pass": "path",  # there is tempfile
    "import multiprocessing\nmultiprocessing.get_context('fork')": "process",
    "import multiprocessing\nmultiprocessing.Process(target=print)": "process",
    "from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor(2)": "process",
    "import subprocess\nsubprocess.run(['x'], preexec_fn=print)": "process",
    "import subprocess\nsubprocess.Popen(['x'], start_new_session=True)": "process",
    "import os\nos.rename('a', 'b')": "rename",
    "path.rename(other)": "rename",
    "open('a')": "encoding",
    "file = path.open()": "encoding",
    "with path.open('w', newline='') as file: pass": "encoding",
    "path.read_text()": "encoding",
    "path.write_text('a', newline='')": "encoding",
    "import os\nos.fdopen(3, 'w')": "encoding",
    "import tempfile\ntempfile.TemporaryFile('w+')": "encoding",
    "import subprocess\nsubprocess.run(['x'], text=True)": "encoding",
    "path.open('w', encoding='utf-8')": "newline",
    "path.write_text('a', encoding='utf-8')": "newline",
    "out = folder / f'{day}T10:30.json'": "name",
    "out = folder / 'aux'": "name",
    "out = path.with_name('what?')": "name",
    "out = folder / f'{name}.'": "name",
    "from pathlib import Path\nPath(f'{folder}/x')": "join",
    "open(folder + '/x', 'rb')": "join",
    "top = str(path).split('/')[0]": "join",
}
HARMLESS = [
    "import os\nif hasattr(os, 'fork'):\n    os.fork()",
    "import os\nn = os.getuid() if hasattr(os, 'getuid') else 0",
    "import os\nif cores and hasattr(os, 'sched_setaffinity'):\n    os.sched_setaffinity(0, cores)",
    "import os, sys\nif sys.platform == 'linux':\n    os.sched_getaffinity(0)",
    "import os, sys\nif sys.platform.startswith('linux'):\n    os.sched_getaffinity(0)",
    "import os, signal, sys\nif sys.platform != 'win32':\n    os.killpg(1, signal.SIGKILL)",
    "import os\nif os.name == 'nt':\n    pass\nelse:\n    os.fork()",
    "import os\ndef f():\n    if not hasattr(os, 'sysconf'):\n        return 0\n    return os.sysconf('SC_CLK_TCK')",
    "import os\ntry:\n    os.fork()\nexcept (AttributeError, OSError):\n    pass",
    "import contextlib, os\nwith contextlib.suppress(AttributeError):\n    os.fork()",
    "import os\nn = getattr(os, 'getuid', None)",
    "try:\n    import pwd\nexcept ImportError:\n    pwd = None\nif pwd is not None:\n    pwd.getpwall()",
    "def f():\n    try:\n        import fcntl\n    except ImportError:\n        return\n    fcntl.flock(1, 2)",
    "import signal\nsignal.signal(signal.SIGTERM, print)",
    "import os\nos.umask(0)",
    "from pathlib import Path\ntry:\n    Path('/proc/stat').read_bytes()\nexcept OSError:\n    pass",
    "from pathlib import Path\ninfo = Path('/proc/cpuinfo')\nfound = info.is_file()",
    '"""/tmp is a folder."""',
    "import multiprocessing\nmultiprocessing.get_context('spawn')",
    "import subprocess\nsubprocess.Popen(['x'], start_new_session=True, creationflags=0)",
    "path.replace(other)",
    "open('a', 'rb')",
    "path.open('rb')",
    "lane.open()",
    "archive.open(member)",
    "path.write_text('a', encoding='utf-8', newline='')",
    "out.write_text('name.json', text)",  # a method of our own with a name before the text
    "out = folder / f'{name}.part-{number}'",
    "from pathlib import Path\nPath(folder) / 'x'",
    "top = archive_name.split('/')[0]",
]


@pytest.mark.parametrize("path", SOURCES, ids=[path.relative_to(REPOSITORY).as_posix() for path in SOURCES])
def test_a_source_uses_nothing_that_windows_or_macos_lack(path: Path) -> None:
    name = path.relative_to(REPOSITORY).as_posix()
    found = [finding for finding in findings(path.read_text(encoding="utf-8")) if (name, finding.kind) not in EXEMPT]
    assert found == []


@pytest.mark.parametrize(("name", "kind"), EXEMPT)
def test_an_exemption_is_still_needed(name: str, kind: str) -> None:
    assert kind in {finding.kind for finding in findings((REPOSITORY / name).read_text(encoding="utf-8"))}


@pytest.mark.parametrize(("source", "kind"), PLANTED.items())
def test_a_planted_fault_is_found(source: str, kind: str) -> None:
    assert {finding.kind for finding in findings(source)} == {kind}


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_guarded_or_the_same_everywhere_is_not_found(source: str) -> None:
    assert findings(source) == []


@pytest.mark.parametrize(
    "name", ["a:b", "what?", "a*", 'a"b', "a<b", "a|b", "a\\b", "a\nb", "end.", "end ", "CON", "nul.txt", "com1", ""]
)
def test_a_name_that_windows_refuses_or_changes_is_not_usable(name: str) -> None:
    assert not is_usable_name(name)


@pytest.mark.parametrize("name", ["console", "fp32.onnx", ".part-x", "a b", "com10.txt", "übung"])
def test_other_names_are_usable(name: str) -> None:
    assert is_usable_name(name)


def test_what_training_export_and_cache_write_has_names_that_windows_takes(
    trained: TrainedRun, exported: Exported, tmp_path: Path
) -> None:
    written = [path for top in (trained.runs, exported.path.parent) for path in top.rglob("*")]
    assert {path.name for path in written} >= {"fp32.onnx", "config.json"}
    assert [str(path) for path in written if not is_usable_name(path.name)] == []


def test_files_of_the_repository_can_be_checked_out_on_every_system() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    names = listed.strip("\0").split("\0")
    assert "pyproject.toml" in names
    assert [name for name in names if not all(map(is_usable_name, name.split("/")))] == []
    folders = {parent.as_posix() for name in names for parent in Path(name).parents}
    entries = {*names, *folders}
    assert len({entry.casefold() for entry in entries}) == len(entries)  # README and readme are one file on Windows
    assert max(map(len, names)) < 150  # of 260 in all, with the folder that it is in
    links = subprocess.run(["git", "ls-files", "-s"], cwd=REPOSITORY, capture_output=True, check=True).stdout.decode()
    assert [line for line in links.splitlines() if line.startswith("120000")] == []  # links need a privilege there


def test_files_whose_bytes_count_keep_their_line_ends_on_every_system() -> None:
    asked = ["weights/nano/final.safetensors", "embed/node/tinyres.mjs", "export/templates/triton/serve.sh", "LICENSE"]
    said = subprocess.run(["git", "check-attr", "eol", "text", "--", *asked], cwd=REPOSITORY, capture_output=True)
    found = said.stdout.decode()
    assert all(f"{name}: eol: lf" in found or f"{name}: text: unset" in found for name in asked)
