from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny import TrainedRun

from tinyres.errors import UsageError
from tinyres.export.artifact import Exported
from tinyres.export.diff import compare, difference
from tinyres.progress import Silent


def test_a_checkpoint_and_its_artifact_do_not_differ(exported: Exported, trained: TrainedRun) -> None:
    found = compare(trained.best, exported.path, trained.started.dataset, progress=Silent())
    assert (found.images, found.source, found.agreement, found.change) == (15, "folders", 1.0, 0.0)
    assert found.error is not None
    assert found.error < 1e-5
    assert found.accuracy_a == found.accuracy_b


def test_without_data_drawn_pictures_show_what_changed(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.path)
    for name in ("fc.weight", "fc.bias"):
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight)[[1, 0, 2]], name))
    onnx.save(model, tmp_path / "swapped.onnx")
    found = compare(exported.path, tmp_path / "swapped.onnx", None, progress=Silent())
    assert (found.source, found.accuracy_a, found.change) == ("generated", None, None)
    assert found.flips
    assert all({flip.checkpoint, flip.artifact} <= {0, 1, 2} for flip in found.flips)


def test_flips_margins_and_paired_accuracy_are_counted_by_hand() -> None:
    a = np.array([[2, 0], [2, 0], [0, 3], [0, 3]], dtype=np.float32)
    b = np.array([[2, 0], [0, 1], [0, 3], [1, 0]], dtype=np.float32)
    found = difference(a, b, labels=np.array([0, 1, 1, 1]), source="test")
    assert [(flip.image, flip.checkpoint, flip.artifact, flip.margin) for flip in found.flips] == [
        (1, 0, 1, 2.0),
        (3, 1, 0, 3.0),
    ]
    assert found.agreement == 0.5
    assert found.accuracy_a is not None
    assert found.accuracy_a.correct == 3
    assert found.change == 0.0
    assert found.max_abs == 3.0


def test_models_of_other_classes_are_not_compared(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.path)
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"circle"', '"disc"')
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UsageError, match="other classes, only in the first: circle; only in the second: disc: their"):
        compare(exported.path, tmp_path / "other.onnx", None, progress=Silent())


def test_answers_that_are_not_finite_are_not_compared() -> None:
    bad = np.array([[np.nan, 1]], dtype=np.float32)
    with pytest.raises(UsageError, match="NaN"):
        difference(bad, bad, labels=None, source="test")
