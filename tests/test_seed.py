"""The import against an independent statement of the seed's network, written from its description alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from seed_network import seed_network
from torch import Tensor

from tinyres import seed
from tinyres.errors import CheckpointError
from tinyres.importing import import_seed
from tinyres.model import build_model
from tinyres.runs import find_model
from tinyres.spec import ModelSpec


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_converted_weights_answer_like_the_seed() -> None:
    network = seed_network()
    converted = seed.convert(network.state_dict())
    blocks, widths, classes = seed.shape_of(converted)
    assert (blocks, widths, classes) == ((1, 2, 1, 2), (8, 16, 24, 32), 7)
    names = tuple(map(str, range(classes)))
    model = build_model(ModelSpec(class_names=names, class_ids=names, blocks=blocks, widths=widths))
    model.load_state_dict(converted, strict=True)
    images = torch.randn(5, 3, 64, 64)
    with torch.inference_mode():
        assert relative_difference(model.eval()(images), network(images)) < 1e-5


@pytest.mark.slow
def test_the_full_resnet34_imports_as_a_run_with_tiny_imagenets_classes(tmp_path: Path) -> None:
    network = seed_network(200, (3, 4, 6, 3), (64, 128, 256, 512))
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_386_312
    torch.save(network.state_dict(), tmp_path / "ResNet34_best.pth")
    run = import_seed(tmp_path / "ResNet34_best.pth", runs=tmp_path / "runs")
    spec = run.config().spec
    assert (spec.blocks, spec.class_ids[0], spec.class_names[0]) == (
        (3, 4, 6, 3),
        "n01443537",
        "goldfish, Carassius auratus",
    )
    assert find_model(None, tmp_path / "runs").path == run.best


def test_prefixes_of_compiled_and_parallel_modules_are_taken_off(tmp_path: Path) -> None:
    wrapped = {f"_orig_mod.module.{name}": value for name, value in seed_network().state_dict().items()}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    assert "conv1.weight" in seed.convert(seed.read_state_dict(tmp_path / "wrapped.pth"))


def test_classes_and_history_come_along(tmp_path: Path) -> None:
    torch.save(seed_network(2).state_dict(), tmp_path / "w.pth")
    (tmp_path / "classes.txt").write_text("n1\tfirst\nn2\n")
    (tmp_path / "history.json").write_text(
        '{"train_loss": [2, 1], "train_acc": [0.1, 0.2], "val_loss": [2, 1], "val_acc": [0.1, 0.3], "lr": [0.1, 0.05]}'
    )
    run = import_seed(
        tmp_path / "w.pth", runs=tmp_path, classes=tmp_path / "classes.txt", history=tmp_path / "history.json"
    )
    assert run.config().spec.class_names == ("first", "n2")
    assert [epoch.val_acc for epoch in run.history()] == [0.1, 0.3]


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": Malicious()}, "does not .*load|not a state dict"),
        ({"epoch": 3, "model": {}}, "other things than tensors"),
        ([1, 2], "other things than tensors"),
        ({"fc.weight": torch.zeros(1)}, "it holds 'fc.weight'"),
        ({"linear.weight": torch.zeros(2, 3)}, "not the seed's network"),
    ],
)
def test_a_foreign_pth_is_refused_and_nothing_in_it_runs(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "foreign.pth")
    with pytest.raises(CheckpointError, match=message):
        import_seed(Path("foreign.pth"), runs=tmp_path / "runs")
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_bytes_that_are_no_pth_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a state dict that loads safely"):
        seed.read_state_dict(tmp_path / "bad.pth")
