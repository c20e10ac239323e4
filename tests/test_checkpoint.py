from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tinyres.checkpoint import load_state, load_weights, same_weights, save_state, save_weights
from tinyres.errors import CheckpointError
from tinyres.header import Origin
from tinyres.model import ResNet, build_model
from tinyres.spec import ModelSpec

SPEC = ModelSpec(class_names=("a", "b"), class_ids=("1", "2"), blocks=(1,), widths=(4,))
ORIGIN = Origin(run="r", recipe="seed", data_kind="shapes", data_fingerprint="f", epoch=1, step=2, selected_on="val")


@pytest.fixture
def model() -> ResNet:
    torch.manual_seed(0)
    return build_model(SPEC)


def test_weights_spec_and_origin_come_back(model: ResNet, tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", model.to(memory_format=torch.channels_last), SPEC, ORIGIN)
    checkpoint = load_weights(tmp_path / "w.safetensors")
    assert (checkpoint.spec, checkpoint.origin) == (SPEC, ORIGIN)
    assert same_weights(checkpoint.model().state_dict(), model.state_dict())


def test_equal_weights_give_equal_bytes(model: ResNet, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, model, SPEC, ORIGIN)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_state_tree_comes_back_with_types_and_bits(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "step": 3,
        "rate": 0.1,
        "none": None,
        "names": ["a", {"deep": torch.arange(5)}],
        "by_number": {0: {"momentum": torch.tensor([1.5, float("inf")])}, 1: {}},
    }
    save_state(tmp_path / "state", state)
    back = load_state(tmp_path / "state")
    assert (back["step"], back["rate"], back["none"]) == (3, 0.1, None)
    assert torch.equal(back["names"][1]["deep"], torch.arange(5))
    assert torch.equal(back["by_number"][0]["momentum"], state["by_number"][0]["momentum"])
    assert list(back["by_number"]) == [0, 1]


def test_a_file_without_our_header_is_refused_with_the_import_command(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="without a tinyres header") as caught:
        load_weights(tmp_path / "foreign.safetensors")
    assert "tinyres import" in str(caught.value.hint)


@pytest.mark.parametrize("header", ["{}", '{"spec": 3}', "no json"])
def test_a_header_that_does_not_fit_is_refused(header: str, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "odd.safetensors", metadata={"tinyres": header})
    for read in (load_weights, load_state):
        with pytest.raises(CheckpointError):
            read(tmp_path / "odd.safetensors")


def test_a_file_cut_short_is_refused(model: ResNet, tmp_path: Path) -> None:
    save_weights(tmp_path / "w", model, SPEC, ORIGIN)
    content = (tmp_path / "w").read_bytes()
    for length in (0, 4, 100, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="is not a checkpoint"):
            load_weights(tmp_path / "cut")


def test_weights_that_do_not_fit_their_spec_are_refused(model: ResNet, tmp_path: Path) -> None:
    wide = ModelSpec(class_names=("a", "b"), class_ids=("1", "2"), blocks=(1,), widths=(8,))
    save_weights(tmp_path / "w", model, wide, ORIGIN)
    with pytest.raises(CheckpointError, match="do not fit their own spec"):
        load_weights(tmp_path / "w").model()


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no file .*none"):
        load_weights(tmp_path / "none")


def test_states_whose_keys_read_alike_keep_their_own_tensors(tmp_path: Path) -> None:
    state = {1: torch.tensor(1.0), "1": torch.tensor(2.0), "a/b": torch.tensor(3.0), "a": {"b": torch.tensor(4.0)}}
    save_state(tmp_path / "s.safetensors", state)  # type: ignore[arg-type]
    found: Any = load_state(tmp_path / "s.safetensors")
    assert [found[1].item(), found["1"].item(), found["a/b"].item(), found["a"]["b"].item()] == [1, 2, 3, 4]
