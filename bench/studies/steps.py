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
        rows.append({"fields": fields, **_profile(asked.recipe, fields)})
        print(_told(rows[-1]), file=sys.stderr, flush=True)
    command = ["python", "-m", "tinyres.bench.studies.steps", *sys.argv[1:]]
    print(records.to_json({"command": " ".join(command), "rows": rows, "environment": environment.capture()}))


def _told(row: dict[str, Any]) -> str:
    found = row.get("profile")
    fields = ", ".join(f"{field}={value}" for field, value in row["fields"].items())
    return f"{fields}: {found['images_per_second']:,.0f} images/s" if found else f"{fields}: {row['error']}"


def _profile(recipe: str, fields: dict[str, str]) -> dict[str, object]:
    """What the profile found, or the error that ended it: too little memory is an answer too."""
    settings = [word for field, value in fields.items() for word in ("--set", f"{field}={value}")]
    words = ["train", "--data", "shapes", "--recipe", recipe, *settings, "--profile", "--json"]
    program = Path(sys.executable).with_name("tinyres")
    ended = subprocess.run([program, *words], capture_output=True, encoding="utf-8", check=False)
    if ended.returncode == 0:
        return {"profile": json.loads(ended.stdout)}
    return {"command": shell_line(*words), "error": ended.stderr.strip().splitlines()[-1]}


if __name__ == "__main__":
    main()
