from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TrainedRun

from tinyres.errors import InputError, UsageError
from tinyres.recipes import DEMO, RECIPES, SEED, find_recipe, override


def test_the_seed_recipe_is_the_seed_to_the_letter() -> None:
    values = (SEED.epochs, SEED.batch_size, SEED.lr, SEED.momentum, SEED.nesterov, SEED.weight_decay, SEED.dropout)
    assert values == (100, 64, 0.01, 0.9, False, 4e-4, 0.4)
    assert (SEED.schedule, SEED.warmup_epochs, SEED.label_smoothing, SEED.init) == ("cosine-by-epoch", 0, 0, "torch")
    assert (SEED.crop_padding, SEED.flip, SEED.blocks, SEED.widths) == (4, "random", (3, 4, 6, 3), (64, 128, 256, 512))


def test_override_takes_numbers_lists_words_and_switches() -> None:
    changed = override(DEMO, ["lr=0.02", "epochs=3", "widths=8,16,32,64", "schedule=cosine", "flip=off"])
    assert (changed.lr, changed.epochs, changed.widths, changed.schedule, changed.flip) == (
        0.02,
        3,
        (8, 16, 32, 64),
        "cosine",
        "off",
    )


def test_an_unknown_field_suggests_the_close_one_and_lists_all() -> None:
    with pytest.raises(UsageError, match="recipe seed has no field 'epoch'") as caught:
        override(SEED, ["epoch=3"])
    assert str(caught.value.hint).startswith("did you mean 'epochs'? valid: blocks, widths")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "expected field=value"),
        ("lr=fast", "lr cannot be 'fast'"),
        ("lr=nan", "lr cannot be '?nan"),
        ("lr=-1", "lr cannot be -1"),
        ("epochs=1.5", "epochs cannot be 1.5"),
        ("epochs=0", "epochs cannot be 0"),
        ("batch_size=0", "batch_size cannot be 0"),
        ("schedule=sine", "schedule cannot be 'sine'"),
        ("image_size=0", "image_size cannot be 0; valid: 8 to 512"),
        ("blocks=1", "blocks cannot be 1"),
        ("name=x", "no field 'name'"),
        ("mix_share=0.5", "mix_share is 0.5, but neither mixup nor cutmix is set"),
        ("grow=0.9,0.1", "two rising shares of the run"),
        ("start_scale=2", "start_scale cannot be 2.*valid: 0.25 to 1"),
        ("flip=both", "flip cannot be 'both'"),
    ],
)
def test_a_value_that_does_not_fit_names_its_field(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        override(SEED, [text])


def test_an_unknown_recipe_suggests_the_close_one() -> None:
    with pytest.raises(UsageError, match="no recipe 'sede'") as caught:
        find_recipe("sede")
    assert "did you mean 'seed'?" in str(caught.value.hint)


def test_a_run_can_be_repeated_from_its_config(trained: TrainedRun, tmp_path: Path) -> None:
    assert find_recipe(str(trained.started.run.path / "config.json")) == trained.started.config.recipe
    (tmp_path / "none.json").write_text('{"recipe": null}')
    for name in ("none.json", "absent.json"):
        with pytest.raises(InputError):
            find_recipe(str(tmp_path / name))


def test_few_epochs_leave_no_room_for_as_much_warm_up() -> None:
    short = override(RECIPES["nano"], ["epochs=1"])
    assert short.warmup_epochs == pytest.approx(1.5 / RECIPES["nano"].epochs)
    best = override(RECIPES["best"], ["epochs=5"])
    assert (best.plain_epochs, best.warmup_epochs) == (0, pytest.approx(5 * 5 / 110))
    assert override(RECIPES["best"], ["epochs=20"]).plain_epochs == 10
    with pytest.raises(UsageError, match=r"warmup_epochs cannot be 2.0; valid: 0 up to epochs"):
        override(RECIPES["nano"], ["epochs=1", "warmup_epochs=2"])
    with pytest.raises(UsageError, match="epochs cannot be 0"):
        override(RECIPES["nano"], ["epochs=0"])


def test_a_wrong_choice_names_all_of_them() -> None:
    with pytest.raises(UsageError, match="flip cannot be 'none'") as caught:
        override(RECIPES["nano"], ["flip=none"])
    assert caught.value.hint == "valid: 'off', 'random' or 'alternating'"
