"""A training that is killed again and again, as a program: `python lives.py PICTURES RUNS SEED [deterministic]`.

Each life is a forked process that kills itself with SIGKILL at a random step or at a random place inside a checkpoint's
write; the next one resumes. Prints what the deaths hit, as JSON.
"""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import safetensors.torch
from tiny import TINY

from tinyres.progress import Silent
from tinyres.training import launch
from tinyres.training import train as train_module
from tinyres.training.train import Options, train
from tinyres.training.trainer import Trainer

RECIPE = replace(
    TINY,
    epochs=12,
    dropout=0.2,
    ema_epochs=0.5,
    flip="alternating",
    start_scale=0.5,
    grow=(0.2, 0.6),
    compile="off",  # on a GPU every life would compile
)
PLACES = ("step", "half written", "written", "renamed")


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place: str, countdown: int) -> None:
    """Make this process kill itself when it comes to `place` for the `countdown`th time."""

    def after(real: Callable[..., object], count: list[int], kill: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            count[0] -= 1
            return kill(*arguments, **options) if count[0] <= 0 else real(*arguments, **options)

        return call

    count = [countdown]
    if place == "step":
        Trainer.train_step = after(Trainer.train_step, count, die)  # type: ignore[method-assign]
    elif place == "half written":

        def half(_tensors: object, path: Path, **_: object) -> None:
            Path(path).write_bytes(b"\x10\0\0\0\0\0\0\0{half of a checkpoint")
            die()

        safetensors.torch.save_file = after(safetensors.torch.save_file, count, half)
    elif place == "written":
        Path.replace = after(Path.replace, count, die)  # type: ignore[method-assign]
    else:
        real = Path.replace
        Path.replace = after(real, count, lambda *paths: (real(*paths), die()))  # type: ignore[method-assign]


def live(started: launch.Started, *, resume: bool) -> None:
    train_module.SAVE_EVERY_S = 0.0  # save at every step, inside epochs too
    train(started.run, started.config, started.dataset, options=Options(resume=resume), progress=Silent())


def in_a_process(work: Callable[[], None]) -> bool:
    """Run `work` in a fork; False if it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise SystemExit("a life ended with an error")
    return True


def main() -> None:
    pictures, runs, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    draw = random.Random(seed)  # noqa: S311 - places to die at are no secret
    exact = sys.argv[4:] == ["deterministic"]
    whole = launch.new_run(pictures, RECIPE, runs=runs, name="whole", deterministic=exact, progress=Silent())
    assert in_a_process(lambda: live(whole, resume=False))
    killed = launch.new_run(pictures, RECIPE, runs=runs, name="killed", deterministic=exact, progress=Silent())
    deaths: collections.Counter[str] = collections.Counter()

    def life() -> None:
        arm(place, draw.randint(1, 12))
        live(killed, resume=killed.run.last.is_file())

    while True:
        place = draw.choice(PLACES)
        draw.random()  # each life draws on: the fork's own draws are lost with it
        if in_a_process(life):
            break
        deaths[place] += 1
    print(json.dumps(deaths))


if __name__ == "__main__":
    main()
