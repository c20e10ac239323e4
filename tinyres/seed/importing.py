"""Make a run of the original project's weights: its bare state dict, and its history where that is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyres import environment, records
from tinyres.errors import CheckpointError, InputError, UsageError
from tinyres.files import read_whole
from tinyres.runs import SCHEMA, Epoch, Run, RunConfig, create_run, now, save_config
from tinyres.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SeedHistory:
    """The seed's `training_history.json`."""

    train_loss: list[float]
    train_acc: list[float]
    val_loss: list[float]
    val_acc: list[float]
    lr: list[float]


def import_seed(
    file: Path, *, runs: Path, name: str | None = None, classes: Path | None = None, history: Path | None = None
) -> Run:
    """Make a run of the seed's bare state dict. Errors: CheckpointError, InputError, UsageError.

    `classes` is a text file, a class a line (`id`, or `id<TAB>name`), in the order of the outputs. Without it, 200
    outputs are taken for Tiny ImageNet's sorted wnids, any other number is named class_0, class_1, ...
    """
    from tinyres.checkpoint import misfit, save_tensors
    from tinyres.header import Origin
    from tinyres.seed import weights

    tensors = weights.convert(weights.read_state_dict(file), place=str(file))
    blocks, widths, outputs = weights.shape_of(tensors, place=str(file))
    class_ids, class_names = _read_classes(classes, outputs)
    spec = ModelSpec(class_names=class_names, class_ids=class_ids, blocks=blocks, widths=widths)
    if reason := misfit(spec, tensors):
        expected = "expected all weights of the original project's network: its ResNet34_best.pth"
        raise CheckpointError(f"{file} does not fit the network: {reason}", hint=expected)
    epochs = read_history(history) if history else []
    run = create_run(runs, name, stem="import")
    config = RunConfig(
        schema=SCHEMA,
        name=run.name,
        created=now(),
        data="tiny-imagenet",
        data_kind="unknown",
        data_fingerprint="",
        judged_on="val",
        seed=0,
        recipe=None,
        spec=spec,
    )
    save_config(run, config, environment.capture())
    origin = Origin(
        run=run.name, recipe="imported", data_kind="unknown", data_fingerprint="", epoch=0, step=0, selected_on="none"
    )
    save_tensors(run.best, tensors, spec, origin)
    run.save_history(epochs)
    run.set_state("imported", epochs=len(epochs))
    return run


def _read_classes(path: Path | None, outputs: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if path is None:
        if outputs == 200:
            from tinyres.data.tiny_imagenet import WNIDS, WORDS

            return WNIDS, WORDS
        names = tuple(f"class_{index}" for index in range(outputs))
        return names, names
    try:
        text = read_whole(path, records.MAX_RECORD_BYTES).decode()
    except UnicodeDecodeError as exc:
        raise UsageError(
            f"--classes {path} is no UTF-8 text: {exc.reason} at byte {exc.start}", hint="save it as UTF-8"
        ) from exc
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != outputs:
        raise UsageError(f"{path} has {len(lines)} classes, the weights have {outputs} outputs", hint="a class a line")
    ids = tuple(line.split("\t")[0].strip() for line in lines)
    return ids, tuple(line.split("\t")[-1].strip() for line in lines)


def read_history(path: Path) -> list[Epoch]:
    """The epochs of a file in the form of the seed's `training_history.json`. Errors: InputError."""
    seen = records.load(SeedHistory, path)
    rows = zip(seen.train_loss, seen.train_acc, seen.val_loss, seen.val_acc, seen.lr, strict=False)
    try:
        return [
            Epoch(number, 0, True, train_loss, train_acc, val_loss, val_acc, 0, lr, 0.0, 0.0)
            for number, (train_loss, train_acc, val_loss, val_acc, lr) in enumerate(rows, start=1)
        ]
    except UsageError as exc:
        raise InputError(f"{path} holds an epoch that cannot be: {exc}") from exc
