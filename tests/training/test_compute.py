from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import TINY, Heard

from tinyres.errors import TrainingError, UsageError
from tinyres.model import ResNet, build_model
from tinyres.progress import Silent
from tinyres.spec import ModelSpec
from tinyres.training import compute
from tinyres.training.compute import Compute, batch_that_fits, choose, compile_model, differences
from tinyres.training.distributed import World

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
NAMES = ("a", "b")
SPEC = ModelSpec(class_names=NAMES, class_ids=NAMES, blocks=(1, 1), widths=(16, 32), dropout=0.0)


def chosen(precision: str, heard: Heard, before: Compute | None = None) -> Compute:
    recipe = replace(TINY, precision=precision)
    return choose(recipe, build_model(SPEC), ALONE, deterministic=False, before=before, progress=heard)


@pytest.mark.parametrize(("speedup", "taken"), [(3.0, "bf16"), (1.1, "fp32"), (0.1, "fp32")])
def test_bf16_is_taken_only_where_it_pays_and_that_is_said(
    speedup: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = replace(compute.capture(), instruction_sets=("avx512_bf16",))
    monkeypatch.setattr(compute, "capture", lambda: machine)
    monkeypatch.setattr(compute, "bf16_speedup", lambda _: speedup)
    heard = Heard()
    assert chosen("auto", heard).precision == taken
    assert heard.lines[0].startswith("trying bf16")
    assert heard.lines[1:] == [f"computes in {taken}: bf16 is {speedup:.1f} times as fast as fp32 here"]


def test_without_instructions_for_bf16_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = replace(compute.capture(), instruction_sets=("avx2",))
    monkeypatch.setattr(compute, "capture", lambda: machine)
    monkeypatch.setattr(compute, "bf16_speedup", lambda _: pytest.fail("tried"))
    assert chosen("auto", Heard()).precision == "fp32"


def test_a_resumed_run_keeps_its_precision_and_a_recipe_can_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "bf16_speedup", lambda _: pytest.fail("tried again"))
    before = chosen("bf16", Heard())
    assert before.precision == "bf16"
    assert chosen("auto", Heard(), before).precision == "bf16"
    assert differences(before, chosen("auto", Heard(), before)) == []
    other = replace(before, threads=7, torch="1.0")
    assert differences(before, other) == [
        f"torch was {torch.__version__}, is 1.0",
        f"threads was {before.threads}, is 7",
    ]


def test_a_run_resumed_on_another_device_chooses_again_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = replace(compute.capture(), instruction_sets=("avx2",))
    monkeypatch.setattr(compute, "capture", lambda: machine)
    before = replace(chosen("fp32", Heard()), device="some GPU", precision="bf16", compiled=True)
    now = chosen("auto", Heard(), before)
    assert (now.precision, now.compiled) == ("fp32", False)
    assert "precision was bf16, is fp32" in differences(before, now)


def test_the_speed_of_bf16_is_measured() -> None:
    assert 0.001 < compute.bf16_speedup(build_model(SPEC)) < 100


def test_deterministic_algorithms_are_asked_of_torch() -> None:
    try:
        made = choose(TINY, build_model(SPEC), ALONE, deterministic=True, before=None, progress=Silent())
        assert made.deterministic
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_compile_on_a_cpu_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute.shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        choose(
            replace(TINY, compile="on"), build_model(SPEC), ALONE, deterministic=False, before=None, progress=Silent()
        )


def warmed(model: ResNet, heard: Silent) -> None:
    compile_model(model, images=4, sizes=[16, 24], device=CPU, precision="fp32", progress=heard)


def test_a_compiler_that_fails_is_one_line_and_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(SPEC)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def broken(*_: object, size: int, **__: object) -> None:
        model.bn1.running_mean.fill_(7)
        if size == 24:
            raise AttributeError("inductor lost its way\nand more")

    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    monkeypatch.setattr(compute, "try_step", broken)
    with pytest.raises(TrainingError, match=r"^torch.compile failed: inductor lost its way$") as caught:
        warmed(model, Silent())
    assert caught.value.hint == "--set compile=off"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_warming_up_the_compiled_model_changes_no_weight_and_no_statistic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    model = build_model(SPEC)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    heard = Heard()
    warmed(model, heard)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert heard.lines[0] == "compiling for 2 picture sizes"
    assert heard.lines[1].startswith("compiled in ")


@pytest.mark.parametrize(("most", "fits"), [(100, 50), (13, 12), (1, 1), (0, None)])
def test_the_batch_that_fits_is_found_by_trying(most: int, fits: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object, images: int, **__: object) -> None:
        if images > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compute, "try_step", step)
    assert batch_that_fits(build_model(SPEC), CPU, "fp32", too_many=100, size=16) == fits


def test_what_is_no_lack_of_memory_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object, **__: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(compute, "try_step", step)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        batch_that_fits(build_model(SPEC), CPU, "fp32", too_many=8, size=16)
