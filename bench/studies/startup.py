"""How soon each command says its first line: `python -m tinyres.bench.studies.startup`, beside `runs/demo`.

Whole processes in turns, bytecode compiled; the time is from the start of one to its first line of output.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tinyres import environment, records
from tinyres.bench.schedule import interleaved
from tinyres.errors import UsageError
from tinyres.files import remove

ROUNDS = 9
SCRATCH = "runs/demo/startup-runs"
ARTIFACT = "runs/demo/export/fp32.onnx"
COMMANDS = (
    "--help",
    "train --help",
    "recipes",
    "doctor",
    f"train --data shapes --recipe demo --runs {SCRATCH}",
    "export demo",
    "bench demo",
    "eval demo",
    "predict runs/demo/star.png --model demo",
    f"verify {ARTIFACT}",
    f"info {ARTIFACT}",
)


def main() -> None:
    """Measure and print JSON."""
    if not Path(ARTIFACT).is_file():
        raise UsageError("there is no demo run here", hint="tinyres demo")
    seconds: dict[str, list[float]] = {command: [] for command in COMMANDS}
    try:
        for command in interleaved(COMMANDS, ROUNDS):
            seconds[command].append(_first_line(command))
    finally:
        remove(Path(SCRATCH))
    result = {
        "command": "python -m tinyres.bench.studies.startup",
        "median_s": {command: round(statistics.median(values), 3) for command, values in seconds.items()},
        "samples_s": {command: [round(value, 4) for value in values] for command, values in seconds.items()},
        "environment": environment.capture(),
    }
    print(records.to_json(result))


def _first_line(command: str) -> float:
    started = time.perf_counter()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("tinyres"), *command.split()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with process:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError(f"tinyres {command} said nothing")
        took = time.perf_counter() - started
        process.kill()
    return took


if __name__ == "__main__":
    main()
