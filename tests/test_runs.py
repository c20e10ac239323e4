from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from conftest import REPOSITORY
from tiny import TrainedRun

from tinyres.errors import CheckpointError, InputError, UsageError
from tinyres.export.artifact import Exported
from tinyres.exported import find_artifact
from tinyres.runs import Epoch, Run, create_run, find_model
from tinyres.seed.importing import read_history


@pytest.fixture
def two_runs(trained: TrainedRun, exported: Exported, tmp_path: Path) -> Path:
    """`old` with an artifact, and `new`, made later, without."""
    for name, created in (("old", "2026-01-01T00:00:00+00:00"), ("new", "2026-01-02T00:00:00+00:00")):
        shutil.copytree(trained.started.run.path, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        config["created"] = created
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    shutil.rmtree(tmp_path / "new" / "export")
    return tmp_path


def test_nothing_named_is_the_newest_usable_run(two_runs: Path) -> None:
    assert find_model(None, two_runs).name == "new"
    Run(two_runs / "new").set_state("running", epochs=1)
    assert find_model(None, two_runs).name == "old"
    (two_runs / "old" / "config.json").write_text("damaged")
    with pytest.raises(UsageError, match="no finished run"):
        find_model(None, two_runs)


def test_a_model_is_a_name_a_path_a_checkpoint_or_an_artifact(two_runs: Path) -> None:
    best = two_runs / "old" / "best.safetensors"
    for text in ("old", str(two_runs / "old"), str(best)):
        assert find_model(text, two_runs).path == best
    artifact = two_runs / "old" / "export" / "fp32.onnx"
    model = find_model(str(artifact), two_runs)
    assert (model.path, model.run) == (artifact, Run(two_runs / "old"))


def test_the_file_to_classify_with_is_the_runs_artifact_or_the_file_named(two_runs: Path) -> None:
    artifact, best = two_runs / "old" / "export" / "fp32.onnx", two_runs / "old" / "best.safetensors"
    assert find_artifact(find_model("old", two_runs)) == artifact
    assert find_artifact(find_model(str(artifact), two_runs)) == artifact
    assert find_artifact(find_model(str(best), two_runs)) == best


def test_a_run_without_an_artifact_answers_with_its_checkpoint(two_runs: Path) -> None:
    assert find_artifact(find_model("new", two_runs)) == two_runs / "new" / "best.safetensors"


def test_a_run_that_kept_only_its_last_weights_stands_for_them(two_runs: Path) -> None:
    (two_runs / "new" / "best.safetensors").unlink()
    assert find_model("new", two_runs).path == two_runs / "new" / "final.safetensors"


def test_shipped_weights_are_a_model_whose_outputs_go_to_the_runs(two_runs: Path) -> None:
    model = find_model("nano", two_runs)
    assert (model.how, model.name, model.home) == ("shipped", "nano", two_runs / "nano")
    assert find_artifact(model) == model.path
    artifact = two_runs / "nano" / "export" / "fp32.onnx"
    artifact.parent.mkdir(parents=True)
    artifact.touch()
    shutil.copy(model.path.parent / "fp32.onnx.json", artifact.parent)
    assert find_artifact(find_model("nano", two_runs)) == artifact


def test_an_artifact_of_other_weights_is_not_the_models(two_runs: Path) -> None:
    best = two_runs / "old" / "best.safetensors"
    best.write_bytes(best.read_bytes() + b"\0")
    assert find_artifact(find_model("old", two_runs)) == best
    (two_runs / "old" / "export" / "fp32.onnx.json").unlink()
    assert find_artifact(find_model("old", two_runs)) == best


def test_a_run_goes_before_shipped_weights_of_its_name(two_runs: Path) -> None:
    (two_runs / "new").rename(two_runs / "nano")
    assert find_model("nano", two_runs).how == "run"


def test_nothing_named_is_never_shipped_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished run"):
        find_model(None, tmp_path)


def test_an_unknown_name_suggests_the_close_run(two_runs: Path) -> None:
    with pytest.raises(UsageError, match="no model 'odl'") as caught:
        find_model("odl", two_runs)
    assert caught.value.hint == "did you mean 'old'? valid: new, old, nano"


def test_a_run_without_weights_and_a_folder_that_is_none_say_so(two_runs: Path) -> None:
    for weights in (two_runs / "new").glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(CheckpointError, match="run new has no checkpoint yet"):
        find_model("new", two_runs)
    (two_runs / "plain").mkdir()
    with pytest.raises(CheckpointError, match="so no run"):
        find_model(str(two_runs / "plain"), two_runs)


@pytest.mark.parametrize("name", ["nul", "CON", "com1.old", "a.", "..", ".a", "-a", "a b", "a/b", "a:b", ""])
def test_a_run_has_a_name_that_every_system_takes(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run name"):
        create_run(tmp_path, name, stem="x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "_", "nul-1", "console", "com10", "v1.0", "über_2"])
def test_other_names_are_taken(name: str, tmp_path: Path) -> None:
    assert create_run(tmp_path, name, stem="x").path.is_dir()


LINE = Epoch(1, 1, True, 1.0, 0.5, 1.0, 0.5, 9, 0.1, 1.0, 9.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epoch", 10**400),
        ("step", -1),
        ("val_images", 10**13),
        ("train_acc", 1e308),
        ("val_acc", -0.1),
        ("lr", 1e308),
        ("seconds", -1.0),
        ("images_per_second", -1.0),
        ("val_loss", 1e308),
    ],
)
def test_a_history_with_an_absurd_number_is_refused_by_its_field(field: str, value: float, tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(json.dumps([asdict(LINE), asdict(LINE) | {field: value}]))
    with pytest.raises(InputError, match=rf"history.json is damaged .*: {field} of an epoch is out of range; valid: "):
        Run(tmp_path).history()


@pytest.mark.parametrize("field", ["train_acc", "lr", "seconds", "images_per_second"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_only_a_loss_may_be_no_finite_number(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{field} of an epoch is out of range"):
        replace(LINE, **{field: value})
    assert replace(LINE, train_loss=value, val_loss=-value)


def test_the_histories_of_the_repository_are_within_range() -> None:
    found = [path for home in ("weights", "results") for path in (REPOSITORY / home).rglob("history.json")]
    assert len(found) >= 3
    assert all(Run(path.parent).history() for path in found)
    assert read_history(REPOSITORY / "weights" / "nano" / "training_history.json")


def test_a_user_who_is_not_here_is_a_name_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model '~nobody-here/x'"):
        find_model("~nobody-here/x", tmp_path)
