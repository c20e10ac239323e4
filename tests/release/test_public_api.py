from __future__ import annotations

import importlib

import pytest

import tinyres

PUBLIC = ["Classifier", "ModelSpec", "Prediction", "Preprocess", "Runner", "TinyresError", "open_runner"]


def test_the_public_names_are_these_and_each_loads() -> None:
    assert tinyres.__all__ == PUBLIC
    assert all(getattr(tinyres, name).__name__ == name for name in PUBLIC)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clasifier'"):
        _ = tinyres.Clasifier


@pytest.mark.parametrize("package", ["tinyres.export", "tinyres.bench", "tinyres.runtime", "tinyres.data"])
def test_the_folders_install_under_one_name(package: str) -> None:
    assert importlib.import_module(package).__doc__
