from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tinyres.errors import ArtifactError, BackendUnavailable
from tinyres.export.artifact import Exported
from tinyres.export.verify import verify
from tinyres.progress import Silent
from tinyres.runtime.backends import open_runner
from tinyres.runtime.runner import Precision

openvino_cpu = pytest.importorskip("tinyres.runtime.openvino_cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


def test_openvino_answers_in_float32_and_proves_the_file(exported: Exported) -> None:
    with open_runner(exported.path) as onnxruntime, open_runner(exported.path, backend="openvino", threads=1) as run:
        assert (run.name, run.device, run.precision) == ("openvino", "cpu", Precision("fp32", "fp32"))
        np.testing.assert_allclose(run(IMAGES), onnxruntime(IMAGES), rtol=1e-4, atol=1e-5)
    assert all(level.passed for level in verify(exported.path, backend="openvino", progress=Silent()).levels)


def test_an_answer_is_not_overwritten_by_the_next(exported: Exported) -> None:
    with open_runner(exported.path, backend="openvino") as run:
        first = run(IMAGES)
        kept = first.copy()
        run(255 - IMAGES)
        np.testing.assert_array_equal(first, kept)


def test_threads_do_not_share_a_request(exported: Exported) -> None:
    with open_runner(exported.path, backend="openvino", threads=1) as run, ThreadPoolExecutor(4) as pool:
        wanted = [run(IMAGES[at : at + 1]) for at in range(9)]
        for _ in range(5):
            answers = list(pool.map(lambda at: run(IMAGES[at : at + 1]), range(9)))
            np.testing.assert_array_equal(answers, wanted)


def test_float32_that_would_be_computed_in_less_is_refused(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_cpu, "computed_in", lambda compiled: Counter({"bf16": 3}))
    with pytest.raises(BackendUnavailable, match=r"would compute fp32\.onnx in bf16, not fp32"):
        open_runner(exported.path, backend="openvino")


def test_what_it_computes_in_is_read_back_from_the_library(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to compute in bfloat16, it says so, where the processor can; the file still claims float32."""
    monkeypatch.setitem(openvino_cpu.HINTS, "fp32", openvino_cpu.openvino.Type.bf16)
    capable = "BF16" in openvino_cpu.openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if not capable:
        pytest.skip("this processor has no bfloat16 arithmetic")
    with pytest.raises(BackendUnavailable, match="in bf16, not fp32"):
        open_runner(exported.path, backend="openvino")


def test_a_file_that_is_none_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"junk")
    with pytest.raises(ArtifactError, match="is not an ONNX model"):
        open_runner(tmp_path / "a.onnx", backend="openvino")


def test_the_librarys_words_about_a_damaged_file_need_not_be_utf8(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Core:
        def read_model(self, *_: object) -> object:
            return b"Check failed: \xff".decode()

    monkeypatch.setattr(openvino_cpu.openvino, "Core", Core)
    with pytest.raises(ArtifactError, match="is not an ONNX model that OpenVINO loads"):
        open_runner(exported.path, backend="openvino")
