"""Training steps over batch and picture sizes, compiled and not: `python -m tinyres.bench.studies.steps RECIPE`.

Each is a process of its own, `tinyres train --profile`: pictures a second, where a step's time goes, the share of the
device's peak and the memory taken. Drawn pictures are as large as real ones. It prints one JSON text, and each row to
stderr when it is known.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tinyres import environment, records
from tinyres.console import shell_line


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tinyres.bench.studies.steps")
    parser.add_argument("recipe")
    parser.add_argument("--batches", default="128,256,512,1024,2048")
    parser.add_argument("--sizes", default="64,40", help="of the pictures: the largest, and the smallest of `fast`")
    parser.add_argument("--compile", default="on,off")
    asked = parser.parse_args()
    ways = itertools.product(asked.sizes.split(","), asked.compile.split(","), asked.batches.split(","))
    rows = []
    for size, compiled, batch in ways:
        fields = {"image_size": size, "compile": compiled, "batch_size": batch, "start_scale": "1"}
        rows.append({"fields": fields, **profiled(asked.recipe, fields)})
        _tell(rows[-1])
    command = ["python", "-m", "tinyres.bench.studies.steps", *sys.argv[1:]]
    print(records.to_json({"command": " ".join(command), "rows": rows, "environment": environment.capture()}))


def profiled(recipe: str, fields: dict[str, str]) -> dict[str, Any]:
    """The command, and what its profile found or the error that ended it: too little memory is an answer too."""
    settings = [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]
    words = ["train", "--data", "shapes", "--recipe", recipe, *settings, "--profile", "--json"]
    program = Path(sys.executable).with_name("tinyres")
    ended = subprocess.run([program, *words], capture_output=True, encoding="utf-8", check=False)
    row: dict[str, Any] = {"command": shell_line(*words), "exit_code": ended.returncode}
    if ended.returncode == 0:
        return {**row, "profile": json.loads(ended.stdout)}
    last = (ended.stderr.strip().splitlines() or [""])[-1]
    return {**row, "error": json.loads(last)["message"] if last.startswith("{") else last}


def _tell(row: dict[str, Any]) -> None:
    fields = ", ".join(f"{field}={value}" for field, value in row["fields"].items())
    found = row.get("profile")
    said = f"{found['images_per_second']:,.0f} images/s" if found else f"exit code {row['exit_code']}: {row['error']}"
    print(f"{fields}: {said}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
