"""Argument lists by grammar, from the commands as they are: what is typed wrongly must end in a line and a code.

Left out: `demo` (minutes) unless an option of it is refused, a whole `bench` (no list names a backend that is here),
`--data tiny-imagenet` (a download) and `shapes` (half a minute to draw), the shell completion that Typer offers, and
trainings of more than a few steps: each ends with the sizes of a tiny network. No option that names a file to write
gets a device: a file put in its place would take the device's.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperOption

from fuzzing.kit import ONNX
from fuzzing.readers import Defect, Outcome, Reader

CODES = {0, 1, 2, 3, 4, 130}
MOST_LINES = 60
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys, but for the tab and the end of a line."""
ENDINGS = {
    "train": "--recipe demo --set epochs=1 --set blocks=1 --set widths=4 --set image_size=8 --set batch_size=16"
    " --set warmup_epochs=0 --max-time 1s",
    "bench": "--backends tensorrt",
    "demo": "--no-such-option",
}
"""Added to every list of a command, so that none takes long."""
SHARES = {"export": 0.25, "train": 0.25, "eval": 0.5, "diff": 0.5, "doctor": 0.05, "demo": 0.1, "verify": 0.5}
SHARES |= {"plot": 0.4, "info": 0.6, "data stats": 0.5, "data prepare": 0.5}
PLACES = (
    "runs",
    "runs/run",
    "run",
    "runs/run/best.safetensors",
    "runs/run/last.safetensors",
    "runs/run/config.json",
    "runs/run/history.json",
    ONNX,
    f"{ONNX}.json",
    f"{ONNX}.golden.npz",
    "data",
    "data.zip",
    "pictures",
    "pictures/drawn.png",
    "pictures/*.png",
    "pictures/**",
    "seed.pth",
    "classes.txt",
    "training_history.json",
    "results.json",
    "names.txt",
    "fp32.engine",
    "null",
    "loop",
    "absent",
    "absent.json",
    "absent/deeper",
)
ODD = (
    "",
    " ",
    "-",
    "--",
    ".",
    "..",
    "-1",
    "0",
    "1",
    "2",
    "3.5",
    "nan",
    "inf",
    "1e999",
    "99999999999999999999",
    "9" * 5000,
    "٣",
    "²",
    "0x10",
    "1_000",
    "true",
    "null",
    "[]",
    "[" * 3000,
    "{}",
    "x" * 300,
    "x" * 5000,
    "/".join(["x" * 200] * 30),
    "a\nb",
    "a\x00b",
    "\x1b[2J\x1b]0;t\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "ünï",
    "\U0001f600",
    "\udcff",
    "~",
    "~nobody-of-that-name",
    "~nobody-of-that-name/x",
    "$HOME",
    "*",
    "[",
    "[a-",
    "**/*",
    "?",
    "a=b",
    "=",
    "a:b",
    "1:2:3",
    "1,2",
    "CON",
    "<b>",
    "%s",
    "[red]x[/red]",
    "[/]",
)
KNOWN = {
    "--format": ("onnx", "trt", "triton"),
    "--precision": ("fp32", "fp16", "bf16", "int8"),
    "--target": ("cpu", "cuda", "tensorrt"),
    "--runtime": ("auto", "trt", "rtx"),
    "--example": ("python", "node"),
    "--batch": ("1:2:3", "1,2", "1"),
    "--backend": ("onnxruntime-cpu", "openvino", "pytorch"),
    "--backends": ("tensorrt",),
    "--recipe": ("seed", "demo", "runs/run/config.json"),
    "--set": ("lr=0.1", "epochs=2", "blocks=1,1", "lr=", "=1", "grow=1", "widths=[[1]]", "epochs=" + "[" * 3000),
    "--split": ("val", "holdout"),
    "--max-time": ("1s", "1h", "٣s", "0"),
    "--resume": ("run",),
    "--by": ("epochs", "minutes"),
    "--fail-if": ("p50>5ms", "accuracy<0.6", "slower-than-before", "p50@" + "9" * 5000 + ">5ms", "p50>٣ms"),
    "--compute-capability": ("8.9", "12.0", "8", "a.b"),
    "--data": ("data", "data.zip", "absent"),
    "--runs": ("runs",),
    "--cache": ("made",),
}
NUMBERS = {
    "--top",
    "--seed",
    "--threads",
    "--images",
    "--image-size",
    "--proof-images",
    "--calibration-images",
    "--max-accuracy-drop",
    "--workspace",
    "--optimization-level",
}
HIDDEN = {"--install-completion", "--show-completion"}


@cache
def _commands() -> dict[str, Any]:
    """Every command by its words."""
    from tinyres.cli import app

    root: Any = typer.main.get_command(app)
    found: dict[str, Any] = {"": root}
    for name, command in root.commands.items():
        nested = getattr(command, "commands", None)
        found |= {f"{name} {inner}": one for inner, one in nested.items()} if nested else {name: command}
    return found


def command_readers(kit: Path) -> Iterator[Reader]:
    """A reader for each command: the file that is damaged is its list of arguments."""
    home = kit / "commands"
    if not home.exists():
        _make_home(kit, home)
    for words in _commands():
        yield Reader(
            f"command {words}".strip(),
            home,
            "arguments.json",
            _run,
            lambda _, rng, w=words: json.dumps(drawn(w, rng)).encode(),
            share=SHARES.get(words, 1.0),
        )


def _make_home(kit: Path, home: Path) -> None:
    """A folder as a user has it: a run with its artifact, data, pictures, and files of each kind."""
    import shutil

    home.mkdir()
    shutil.copytree(kit / "run", home / "runs" / "run")
    for folder in ("data", "pictures"):
        shutil.copytree(kit / folder, home / folder)
    for source in ("export", "engine", "seed", "results", "zip"):
        for path in (kit / source).iterdir():
            shutil.copy(path, home / path.name)
    shutil.copy(kit / "texts" / "names.txt", home)
    (home / "null").symlink_to(os.devnull)
    (home / "loop").symlink_to("loop")
    (home / "arguments.json").write_text('["recipes"]')


def drawn(words: str, rng: random.Random) -> list[str]:
    """A list of arguments for a command."""
    command = _commands()[words]
    found = words.split()
    arguments = [parameter for parameter in command.params if isinstance(parameter, TyperArgument)]
    options = [
        parameter
        for parameter in command.params
        if isinstance(parameter, TyperOption) and not HIDDEN & set(parameter.opts)
    ]
    parts: list[list[str]] = []
    for argument in arguments:
        if rng.random() < (0.95 if argument.required else 0.6):
            many = argument.nargs == -1
            parts += [[_place(rng)] for _ in range(rng.choice((1, 1, 2, 5)) if many else 1)]
    for option in rng.sample(options, min(len(options), rng.choice((0, 1, 1, 2, 4)))):
        parts += [_given(option, rng)] * rng.choice((1, 1, 1, 2))
    if rng.random() < 0.1:
        parts.append([rng.choice(("--no-such", "-z", "--json=1", "--top", "-", "--", *ODD))])
    if rng.random() < 0.4:
        parts.append([rng.choice(("--json", "--quiet", "-q", "--debug"))])
    rng.shuffle(parts)
    found += [word for part in parts for word in part]
    if words in ("train", "data prepare", "data stats") and not any(word.startswith("--data") for word in found):
        found += ["--data", rng.choice(("data", "data.zip", "absent"))]
    found += ENDINGS.get(words, "").split()
    return [word for word in found if word not in ("--debug",)] if rng.random() < 0.9 else found


def _place(rng: random.Random) -> str:
    return rng.choice(PLACES) if rng.random() < 0.75 else rng.choice(ODD)


def _given(option: TyperOption, rng: random.Random) -> list[str]:
    name = rng.choice(option.opts)
    if option.is_flag:
        return [name]
    known = KNOWN.get(option.opts[0])
    if known is not None and rng.random() < 0.6:
        value = rng.choice(known)
    elif option.opts[0] in NUMBERS:
        value = rng.choice(("1", "2", "0", "-1", "64", "1000000", *ODD))
    else:
        value = _place(rng)
    return [f"{name}={value}"] if name.startswith("--") and rng.random() < 0.2 else [name, value]


def _run(home: Path) -> Outcome:
    """The command in this process, in its folder; its exit code if all is as it should be."""
    from typer.testing import CliRunner

    from tinyres.cli import app

    arguments = json.loads((home / "arguments.json").read_text(encoding="utf-8"))
    before, where = set(home.parent.iterdir()), Path.cwd()
    environment = {"TINYRES_CACHE": str(home / "made"), "HOME": str(home), "COLUMNS": "80", "NO_COLOR": "1"}
    os.chdir(home)
    try:
        result = CliRunner().invoke(app, arguments, input=b"pictures/drawn.png\n", env=environment)
    finally:
        os.chdir(where)
    wrong = _wrong(arguments, result.exit_code, result.stdout, result.stderr)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        wrong = f"{type(result.exception).__name__}: {str(result.exception)[:200]}"
    if set(home.parent.iterdir()) != before:
        wrong = f"left outside: {set(home.parent.iterdir()) - before}"
    if wrong:
        raise Defect(f"{wrong} <- tinyres {' '.join(word[:60] for word in arguments)!r}")
    return Outcome(f"exit {result.exit_code}")


def _wrong(arguments: list[str], code: int, out: str, err: str) -> str:
    """What is not as it should be in how a command ended; empty if nothing is."""
    if code not in CODES:
        return f"exit code {code}"
    if "this is a defect of tinyres" in err:
        return next(line for line in err.splitlines() if "error" in line)[:300]
    if code and not err.strip() and not out.strip():
        return "it failed and said nothing"
    if "--debug" not in arguments:
        return _badly_said(arguments, out, err, done=code == 0)
    return ""


def _badly_said(arguments: list[str], out: str, err: str, *, done: bool) -> str:
    if "Traceback" in err:
        return "a traceback"
    told = [line for line in err.splitlines() if not line.startswith("error: ") or "predict" not in arguments]
    if len(told) > MOST_LINES:  # predict has one for each picture that it was named
        return f"{len(told)} lines on stderr"
    if found := CONTROL.search(out + err):
        return f"a control character is written: {(out + err)[max(0, found.start() - 60) : found.end()]!r}"
    if done and "--json" in arguments and not {"--jsonl", "--help", "--version"} & set(arguments):
        try:
            json.loads(out)
        except ValueError:
            return f"no JSON on stdout: {out[:100]!r}"
    return ""
