from __future__ import annotations

import pytest

from tinyres import errors
from tinyres.errors import TinyresError, require_choice, suggest

EXIT_CODES = {
    "TinyresError": 1,
    "TrainingError": 1,
    "StorageError": 1,
    "UsageError": 2,
    "InputError": 2,
    "ImageError": 2,
    "DataError": 2,
    "CheckpointError": 2,
    "ArtifactError": 2,
    "ProofError": 3,
    "BackendUnavailable": 4,
}


def test_every_error_has_its_documented_exit_code() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, TinyresError)
    }
    assert found == EXIT_CODES


def test_the_tree_at_the_top_of_the_module_lists_every_error() -> None:
    assert all(name in (errors.__doc__ or "") for name in EXIT_CODES)


def test_suggest_names_the_close_match_and_all_that_is_valid() -> None:
    assert suggest("sede", ["seed", "demo"]) == "did you mean 'seed'? valid: seed, demo"
    assert suggest("xyz", ["seed", "demo"]) == "valid: seed, demo"
    assert suggest("xyz", []) == "there is none yet"


def test_require_choice_refuses_what_is_not_valid() -> None:
    require_choice("format", "onnx", ["onnx"])
    with pytest.raises(errors.UsageError, match="no format 'onxn'") as caught:
        require_choice("format", "onxn", ["onnx"])
    assert caught.value.hint == "did you mean 'onnx'? valid: onnx"
