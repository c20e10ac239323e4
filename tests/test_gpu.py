"""What only a GPU can show: engines and providers on a real device, over the shipped weights.

Each is skipped with its reason where the device or the library is not here; elsewhere the same calls are acted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyres import weights
from tinyres.errors import BackendUnavailable
from tinyres.export.engine import choose_destination, export_engine
from tinyres.export.pipeline import export_onnx
from tinyres.export.verify import verify
from tinyres.progress import Silent
from tinyres.runtime import tensorrt_library
from tinyres.runtime.backends import open_runner, why_unavailable
from tinyres.runtime.cuda import find_device
from tinyres.runtime.passport import BuildOptions

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
PLAIN = BuildOptions((1, 8, 32), None, None, version_compatible=False, hardware_compatible=False)


@pytest.fixture(scope="module", autouse=True)
def _device() -> None:
    try:
        find_device()
    except BackendUnavailable as exc:
        pytest.skip(f"engines and providers were not run on a GPU: {exc}")


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shipped = weights.folder("nano")
    assert shipped is not None
    target = tmp_path_factory.mktemp("gpu") / "fp32.onnx"
    return export_onnx(
        shipped / "final.safetensors",
        target,
        dataset=None,
        batches=PLAIN.batches,
        proof_images=32,
        progress=Silent(),
    ).path


def library(name: str) -> None:
    if name not in tensorrt_library.installed():
        pytest.skip(f"{name} is not installed here")


def test_tensorrt_builds_runs_and_proves_an_engine(onnx: Path) -> None:
    library("tensorrt")
    built = export_engine(
        onnx, onnx.parent, destination=choose_destination("trt", None), options=PLAIN, progress=Silent()
    )
    assert built.certificate.grade == "numeric"
    assert "the inspector shows fp32" in built.certificate.levels[0].detail
    assert verify(built.path, progress=Silent()).path == built.path
    images = np.random.default_rng(0).integers(0, 256, (70, 64, 64, 3), dtype=np.uint8)
    with open_runner(built.path) as engine, open_runner(onnx) as cpu:
        wanted = cpu(images)
        for count in (1, 8, 31, 32, 33, 70, 8, 1):  # recorded, replayed, and in parts
            np.testing.assert_allclose(engine(images[:count]), wanted[:count], rtol=1e-3, atol=1e-3)
        parts = engine.device_times(images[:32], 20)
        assert set(parts) == {"copy in", "network", "copy out", "all, enqueued", "all, one graph"}
        assert all(min(took) > 0 for took in parts.values())


def test_tensorrt_for_rtx_runs_on_its_gpus_and_refuses_others_readably(onnx: Path) -> None:
    library("tensorrt-rtx")
    destination = choose_destination("rtx", None)
    built = export_engine(onnx, onnx.parent, destination=destination, options=PLAIN, progress=Silent())
    if destination.device is not None:
        assert built.certificate.grade == "numeric"
        return
    assert built.certificate.grade == "unproven"
    with pytest.raises(BackendUnavailable, match="the engine was built for tensorrt-rtx"):
        open_runner(built.path)


@pytest.mark.parametrize("backend", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_onnxruntimes_providers_prove_the_file(onnx: Path, backend: str) -> None:
    if missing := why_unavailable(backend):
        pytest.skip(str(missing))
    levels = verify(onnx, backend=backend, progress=Silent()).levels
    assert all(level.passed for level in levels)
    with open_runner(onnx, backend=backend) as runner:
        parts = runner.device_times(np.zeros((32, 64, 64, 3), dtype=np.uint8), 20)
    assert [len(took) for took in parts.values()] == [20]
    assert all(min(took) > 0 for took in parts.values())
