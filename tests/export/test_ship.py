from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny import TrainedRun

from tinyres.checkpoint import load_weights
from tinyres.errors import ProofError, UsageError
from tinyres.export import ship as module
from tinyres.export.certificate import Certificate
from tinyres.export.ship import halved, ship
from tinyres.files import sha256_of
from tinyres.progress import Silent
from tinyres.records import load
from tinyres.runs import Run, find_model


@pytest.fixture
def finished(trained: TrainedRun, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(trained.started.run.path, tmp_path / "mine")))


def test_a_finished_run_becomes_a_folder_that_is_a_model(
    finished: Run, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NAMED", ("folders",))
    data = trained.started.config.data
    ship(finished, tmp_path / "weights" / "small", data, progress=Silent())
    shipped = find_model(str(tmp_path / "weights" / "small"), tmp_path / "runs")
    config = shipped.run.config() if shipped.run else None
    assert config is not None
    assert (config.name, config.data) == ("small", "folders")  # by its kind, and by no path of this machine
    given, kept = load_weights(finished.final), load_weights(shipped.path)
    assert (kept.origin.run, kept.origin.selected_on) == ("small", "none")
    for name, before in given.model().state_dict().items():
        after = kept.model().state_dict()[name]
        torch.testing.assert_close(after, before, rtol=2**-11, atol=2**-24)  # half an ulp of half precision
    certificate = load(Certificate, tmp_path / "weights" / "small" / "fp32.onnx.json")
    assert certificate.checkpoint_sha256 == sha256_of(shipped.path)
    assert (certificate.grade, certificate.images.count) == ("full", 15)
    assert shipped.path.stat().st_size < finished.final.stat().st_size


def test_only_kernels_and_matrices_are_rounded() -> None:
    weights = {"conv": torch.full((1, 1, 1, 1), 0.1), "variance": torch.full((1,), 1e-9), "steps": torch.tensor(70_000)}
    kept = halved(weights)
    assert kept["conv"].dtype == torch.float16
    assert torch.equal(kept["variance"], weights["variance"])
    assert torch.equal(kept["steps"], weights["steps"])


def test_a_run_on_data_of_its_own_is_not_shipped(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained on data of its own"):
        ship(finished, tmp_path / "small", "unused", progress=Silent())
    assert not (tmp_path / "small").exists()


def test_a_run_that_is_not_finished_is_not_shipped(finished: Run, tmp_path: Path) -> None:
    finished.set_state("stopped", epochs=1)
    with pytest.raises(UsageError, match="is not finished"):
        ship(finished, tmp_path / "small", "unused", progress=Silent())


def test_a_proof_that_fails_leaves_nothing_behind(
    finished: Run, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ProofError("not alike")

    monkeypatch.setattr(module, "NAMED", ("folders",))
    monkeypatch.setattr(module, "export_onnx", fail)
    with pytest.raises(ProofError, match="not alike"):
        ship(finished, tmp_path / "small", trained.started.config.data, progress=Silent())
    assert not (tmp_path / "small").exists()
