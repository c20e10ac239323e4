from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY, Heard, TrainedRun, write_pictures

from tinyres.checkpoint import load_weights
from tinyres.data.dataset import Dataset
from tinyres.errors import CheckpointError, UsageError
from tinyres.progress import Silent
from tinyres.recipes import FINETUNE
from tinyres.training import launch
from tinyres.training.train import train
from tinyres.training.trainer import Trainer


@pytest.fixture
def other_classes(tmp_path: Path) -> Path:
    """Two classes, one of them not among the trained run's three."""
    folder = tmp_path / "others"
    write_pictures(folder, classes=4, each=12)
    for name in sorted(path.name for path in folder.iterdir())[:2]:
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    return folder


def begin(data: Path, runs: Path, *assignments: str, init: str, recipe: str | None = None) -> launch.Started:
    request = launch.Request(data=str(data), recipe=recipe, assignments=assignments, init=init)
    return launch.begin(request, None, runs=runs, home=runs / "new", progress=Silent())


def test_fine_tuning_starts_from_the_models_backbone_and_preprocessing(
    trained: TrainedRun, other_classes: Path
) -> None:
    started = begin(other_classes, trained.runs, init="tiny")
    recipe, spec = started.config.recipe, started.config.spec
    old = trained.started.config.spec
    assert recipe is not None
    assert (recipe.name, recipe.blocks, recipe.widths, recipe.image_size) == ("finetune", old.blocks, old.widths, 16)
    assert spec.preprocess == old.preprocess
    assert spec.classes == 2
    assert started.config.started_from == load_weights(trained.best).sha256
    trainer = Trainer(started.run, started.config, started.dataset, start=started.start, progress=Silent())
    kept, made = load_weights(trained.best).tensors, trainer.model.state_dict()
    assert made["fc.weight"].shape == (2, 16)
    assert all(torch.equal(made[name], kept[name]) for name in made if not name.startswith("fc."))


def test_the_classifier_is_kept_where_the_classes_are_the_same(trained: TrainedRun, picture_folder: Path) -> None:
    started = begin(picture_folder, trained.runs, init=str(trained.best))
    trainer = Trainer(started.run, started.config, started.dataset, start=started.start, progress=Silent())
    kept, made = load_weights(trained.best).tensors, trainer.model.state_dict()
    assert all(torch.equal(made[name], kept[name]) for name in made)


def test_a_fine_tuned_run_trains_and_can_be_repeated_from_its_config(trained: TrainedRun, other_classes: Path) -> None:
    started = begin(other_classes, trained.runs, "epochs=2", init="tiny")
    result = train(started.run, started.config, started.dataset, start=started.start, progress=Silent())
    assert result.stopped == ""
    config = str(started.run.path / "config.json")
    with pytest.raises(UsageError, match="they have to be trained already"):
        launch.choose_recipe(config, [], None)
    again = begin(other_classes, trained.runs, init="tiny", recipe=config)
    assert again.config.recipe == started.config.recipe


def test_a_recipe_for_trained_layers_needs_some() -> None:
    with pytest.raises(UsageError, match=r"trains the layers below the classifier 0\.1 times") as caught:
        launch.choose_recipe("finetune", [], None)
    assert "--init MODEL" in str(caught.value.hint)
    assert launch.choose_recipe("finetune", ["backbone_lr=1"], None) == replace(FINETUNE, backbone_lr=1)


@pytest.mark.parametrize("other", ["an artifact", "another network"])
def test_what_cannot_be_started_from_is_refused(
    other: str, trained: TrainedRun, exported: object, picture_folder: Path
) -> None:
    if other == "an artifact":
        with pytest.raises(CheckpointError, match="is no checkpoint to start from"):
            begin(picture_folder, trained.runs, init=str(trained.started.run.path / "export" / "fp32.onnx"))
    else:
        with pytest.raises(CheckpointError, match=r"tiny has blocks \(1, 1\) and widths \(8, 16\)") as caught:
            begin(picture_folder, trained.runs, "widths=8,32", init="tiny")
        assert "leave out --set blocks" in str(caught.value.hint)


def test_a_resumed_fine_tuning_needs_the_model_no_more(trained: TrainedRun, picture_folder: Path) -> None:
    started = begin(picture_folder, trained.runs, "epochs=1", init="tiny")
    train(started.run, started.config, started.dataset, start=started.start, progress=Silent())
    again = launch.old_run(started.run, progress=Silent())
    assert again.start is None
    trainer = Trainer(again.run, again.config, again.dataset, progress=Silent())
    trainer.restore()
    assert trainer.epoch == 1
    assert TINY.epochs != 1


def test_a_start_from_a_model_that_has_seen_what_is_held_back_says_how_much(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_pictures(data, classes=2, each=40)
    first = launch.new_run(str(data), TINY, runs=tmp_path, name="first", progress=Silent())
    train(first.run, first.config, first.dataset, progress=Silent())

    def warned(cache_dir: Path | None = None) -> tuple[str, Dataset]:
        heard = Heard()
        request = launch.Request(data=str(data), init="first")
        started = launch.begin(request, None, runs=tmp_path, home=tmp_path / "new", cache_dir=cache_dir, progress=heard)
        return " ".join(line for line in heard.warned if "among those" in line), started.dataset

    assert warned()[0] == ""  # the same pictures are held back again
    for path in write_pictures(tmp_path / "more", classes=2, each=30, split="val").rglob("*.png"):
        path.rename(data / path.parent.name / f"added-{path.name}")
    assert warned()[0] == ""  # and of more those that stayed the same
    for path in [*data.rglob("*.png")]:
        path.rename(path.with_name(f"renamed-{path.name}"))
    said, dataset = warned()
    seen = sum(any((one == other).all() for other in first.dataset.train.images) for one in dataset.val.images)
    assert seen >= 4  # of about eight
    assert said.startswith(f"{seen} of {len(dataset.val)} pictures to judge on are among those that first was trained")
    assert warned(tmp_path / "empty")[0].startswith("pictures to judge on may be among those that first")
    damaged = Path(shutil.copytree(os.environ["TINYRES_CACHE"], tmp_path / "damaged"))
    (damaged / f"folders-split-{first.config.data_fingerprint[:16]}" / "train.images.npy").write_bytes(b"")
    assert warned(damaged)[0].startswith("pictures to judge on may be among those that first")
