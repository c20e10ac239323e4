"""The import against an independent statement of the seed's network, written from its description alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from seed_network import seed_network
from torch import Tensor

from tinyres.errors import CheckpointError
from tinyres.model import build_model
from tinyres.runs import find_model
from tinyres.seed import weights as seed
from tinyres.seed.importing import import_seed
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
        ([1, 2], "more than a dict of tensors, by the instruction EMPTY_LIST"),
        ({"fc.weight": torch.zeros(1)}, "it holds 'fc.weight'"),
        ({"linear.weight": torch.zeros(2, 3)}, "not the seed's network: layer1.0.conv1.weight is missing"),
        ({}, "not the seed's network: layer1.0.conv1.weight is missing"),
        (
            {"conv2_x.net.0.sequence.0.weight": torch.zeros(2), "linear.weight": torch.zeros(())},
            "not the seed's network: fc.weight has no dimension",
        ),
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


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:torch.quantize_per_tensor")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, of making such tensors
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(2, dtype=torch.bool), "it names 'torch.BoolStorage'"),
        (lambda: torch.zeros(2, dtype=torch.complex64), "it names 'torch.ComplexFloatStorage'"),
        (lambda: torch.zeros(2, dtype=torch.float8_e4m3fn), "it names 'torch"),
        (lambda: torch.zeros(2, device="meta"), "it names 'torch._utils._rebuild_meta_tensor_no_storage'"),
        (lambda: torch.zeros(2).to_sparse(), "it names 'torch._utils._rebuild_sparse_tensor'"),
        (lambda: torch.quantize_per_tensor(torch.zeros(2), 1, 0, torch.qint8), "it names 'torch._utils._rebuild_q"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2)]), "it names 'torch._utils._rebuild_nested_tensor'"),
        (lambda: torch.zeros(2, dtype=torch.int64), "holds integers in 'conv1.0.bias'; valid: finite numbers"),
        (lambda: torch.tensor([0, torch.nan]), "holds NaN or infinity in 'conv1.0.bias'"),
        (lambda: torch.tensor([0, -torch.inf], dtype=torch.bfloat16), "holds NaN or infinity"),
        (lambda: torch.zeros(0), "does not lie within its numbers"),
        (lambda: torch.zeros(1, 1, 1, 1, 1), "no plain shape"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(make: Callable[[], Tensor], message: str, tmp_path: Path) -> None:
    torch.save({"conv1.0.bias": make()}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=message):
        seed.read_state_dict(tmp_path / "odd.pth")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weights_are_read_as_torch_saved_them(kind: torch.dtype, tmp_path: Path) -> None:
    whole = torch.randn(6, 4).to(kind)
    saved = {"a": whole, "b": whole[1:3].T, "c": torch.nn.Parameter(whole[:2].clone()), "d": whole[2, 3]}
    torch.save({**saved, "num_batches_tracked": torch.tensor(7)}, tmp_path / "w.pth")
    found = seed.read_state_dict(tmp_path / "w.pth")
    assert int(found.pop("num_batches_tracked")) == 7
    assert list(found) == list(saved)
    for name, value in saved.items():
        assert found[name].dtype == kind
        assert torch.equal(found[name], value)


def test_the_form_before_pytorch_1_6_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"in the form that torch.save wrote before PyTorch 1\.6") as caught:
        seed.read_state_dict(tmp_path / "old.pth")
    assert caught.value.hint == "load it where you trust it, and save it again with torch.save"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"text"])
def test_bytes_that_are_no_pth_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a state dict that loads safely"):
        seed.read_state_dict(tmp_path / "bad.pth")


def test_torchvisions_own_layout_is_named(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "tv.pth")
    with pytest.raises(CheckpointError, match=r"is not the seed's: it holds 'conv1\.weight'") as caught:
        import_seed(tmp_path / "tv.pth", runs=tmp_path)
    assert str(caught.value.hint).endswith("; this is torchvision's own layout")
