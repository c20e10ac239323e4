"""What is loaded before a command's first line: start-up is felt at every command, and creeps up an import at a time.

Counted, not timed: a slow machine must not fail it. Most of what is counted is Typer's own (with pydantic for what it
parses, and Rich for help).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from tiny import TrainedRun

from tinyres.export.artifact import Exported

PROGRAM = """
import json, os, sys

class First:
    '''Ends the process at its first line, and tells what was loaded by then.'''
    encoding = "utf-8"
    def __init__(self, real):
        self.real = real
    def write(self, text):
        self.real.write(json.dumps([text, sorted(sys.modules)]))
        self.real.flush()
        os._exit(0)
    def flush(self):
        pass
    def isatty(self):
        return False

sys.stdout = sys.stderr = First(sys.stdout)
from tinyres.cli import app
app(sys.argv[1:], prog_name="tinyres")
"""
HEAVY = {"torch", "torchvision", "numpy", "PIL", "onnx", "onnxruntime", "openvino", "matplotlib", "safetensors"}
OURS_MOST = 27
OFTEN = 6
"""So many of them in `make test-quick`: each starts a Python."""
FIRST_LINES = [
    # What is typed, what the first line begins with, what else must not be loaded, and how many modules may be.
    ("--version", "tinyres ", {"pydantic", "rich"}, 215),
    ("--help", "", {"pydantic"}, 415),
    ("predict --help", "", set(), 530),
    ("recipes", "seed ", {"rich"}, 340),
    ("info RUN", "reading ", {"rich"}, 340),
    ("predict PICTURE --model RUN", "model: tiny", {"rich"}, 345),
    ("predict PICTURE --runs RUNS", "the newest run: tiny", {"rich"}, 345),
    ("predict PICTURE --model nano", "shipped weights: nano", {"rich"}, 345),
    ("export RUN", "model: tiny", {"rich"}, 345),
    ("bench RUN", "model: tiny", {"rich"}, 345),
    ("eval RUN", "model: tiny", {"rich"}, 345),
    ("verify FILE", "verifying ", {"rich"}, 340),
    ("diff RUN FILE", "model: tiny", {"rich"}, 345),
    ("plot RUN", "drawing ", {"rich"}, 340),
    ("train --data DATA", "data ", {"rich"}, 345),
    ("import FILE", "importing ", {"rich"}, 340),
    ("data prepare --data DATA", "data ", {"rich"}, 340),
    ("data stats --data DATA", "data ", {"rich"}, 340),
    ("doctor", "looking at this machine", {"rich"}, 340),
    ("demo --runs NONE", "\n1/4 ", {"rich"}, 350),
    ("trian", "error: No such command", {"rich"}, 340),
]


CASES = [
    pytest.param(*case, id=case[0], marks=[] if number < OFTEN else [pytest.mark.slow])
    for number, case in enumerate(FIRST_LINES)
]


@pytest.mark.parametrize(("line", "begins", "absent", "most"), CASES)
def test_little_is_loaded_before_the_first_line(
    line: str,
    begins: str,
    absent: set[str],
    most: int,
    trained: TrainedRun,
    exported: Exported,
    picture_folder: Path,
    tmp_path: Path,
) -> None:
    names = {
        "RUN": trained.started.run.path,
        "RUNS": trained.runs,
        "FILE": exported.path,
        "DATA": picture_folder,
        "PICTURE": REPOSITORY / "docs" / "pictures" / "cat.jpg",
        "NONE": tmp_path,
    }
    words = [str(names.get(word, word)) for word in line.split()]
    ended = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    said, modules = json.loads(ended.stdout)
    assert said.startswith(begins)
    assert said.strip()
    assert (HEAVY | absent) & set(modules) == set()
    assert sum(name.startswith("tinyres") for name in modules) <= OURS_MOST
    assert len(modules) <= most
