from __future__ import annotations

from typing import Any

import pytest

from tinyres.errors import UsageError
from tinyres.header import Origin
from tinyres.spec import ModelSpec, Preprocess, classes_apart

TWO = {"class_names": ("a", "b"), "class_ids": ("n1", "n2")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_ids": ("n1",)}, "2 class names and 1 ids"),
        ({"class_ids": ("n1", "n1")}, "not unique"),
        ({"class_names": ("a",), "class_ids": ("n1",)}, "at least 2"),
        ({"blocks": (1, 1)}, "equal counts"),
        ({"blocks": (0, 1, 1, 1)}, "out of range"),
        ({"widths": (64, 128, 256, 5000)}, "out of range"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"blocks": (1,) * 5, "widths": (8,) * 5, "preprocess": Preprocess(image_size=8)}, "too small for 5 stages"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelSpec(**{**TWO, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 7}, "image_size is 7"),
        ({"image_size": 513}, "image_size is 513"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "must be finite"),
    ],
)
def test_preprocessing_that_cannot_be_done_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Preprocess(**change)


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "a\u202eb", "a\u2028b", "\ud800"])
def test_names_that_a_terminal_acts_on_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="holds control characters"):
        ModelSpec(class_names=(name, "b"), class_ids=("1", "2"))
    with pytest.raises(UsageError, match="a recorded name would act on a terminal"):
        Origin(run=name, recipe="", data_kind="", data_fingerprint="", epoch=0, step=0, selected_on="none")


@pytest.mark.parametrize("name", ["", "tabby cat", "写真 猫", "café", "نامه‌ای"])
def test_names_of_every_script_are_taken(name: str) -> None:
    assert ModelSpec(class_names=(name, "b"), class_ids=("1", "2")).class_names[0] == name


def test_what_classes_differ_by_is_named() -> None:
    def having(*names: str) -> ModelSpec:
        return ModelSpec(class_names=names, class_ids=tuple(name[0] for name in names))

    who = ("ours", "theirs")
    assert classes_apart(having("apple", "banana"), having("apple", "cherry"), who) == (
        "only in ours: banana; only in theirs: cherry"
    )
    assert classes_apart(having("apple", "banana"), having("banana", "apple"), who) == "their order differs"
    many = having("apple", *(f"{letter}-class" for letter in "bcdef"))
    assert classes_apart(many, having("apple", "banana"), who) == "only in ours: c-class, d-class, e-class and 1 more"
