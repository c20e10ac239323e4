from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TrainedRun, checkpoint_of, small_spec

from tinyres.data.augment import normalize
from tinyres.errors import ProofError
from tinyres.export.onnx import check_file, onnx_from_checkpoint
from tinyres.spec import ModelSpec, Preprocess


def run(content: bytes, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(["logits", "probabilities"], {"image": images})
    return outputs


@given(
    stages=st.lists(st.tuples(st.integers(1, 2), st.sampled_from([4, 7, 16])), min_size=1, max_size=4),
    size=st.sampled_from([8, 13, 32]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_any_small_spec_answers_like_pytorch_at_any_batch(stages: list[tuple[int, int]], size: int, seed: int) -> None:
    blocks, widths = zip(*stages, strict=True)
    spec = small_spec(blocks=blocks, widths=widths, preprocess=Preprocess(image_size=size))
    checkpoint, model = checkpoint_of(spec, seed)
    content = onnx_from_checkpoint(checkpoint)
    for batch in (1, 3):
        images = np.random.default_rng(seed).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        logits, probabilities = run(content, images)
        with torch.inference_mode():
            wanted = model.double()(normalize(torch.from_numpy(images), spec.preprocess, dtype=torch.float64)).numpy()
        assert np.abs(logits - wanted).max() <= 2e-5 * np.abs(wanted).max()
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(batch), abs=1e-5)


def test_the_resnet34_is_one_clean_file_for_old_runtimes_with_a_free_batch() -> None:
    names = tuple(map(str, range(200)))
    checkpoint, _ = checkpoint_of(ModelSpec(class_names=names, class_ids=names))
    content = onnx_from_checkpoint(checkpoint)
    model = onnx.load_model_from_string(content)
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)
    counts = {kind: sum(node.op_type == kind for node in model.graph.node) for kind in ("Conv", "Relu", "Add", "Gemm")}
    assert counts == {"Conv": 36, "Relu": 33, "Add": 16, "Gemm": 1}
    assert len(model.graph.node) == 36 + 33 + 16 + 1 + 4 + 3  # preprocessing, then pool, flatten and softmax
    assert model.graph.node[0].op_type == "Cast"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert len(content) == pytest.approx(4 * 21_379_592, rel=0.01)


def test_the_file_names_no_path_and_no_time(tmp_path: Path) -> None:
    checkpoint, _ = checkpoint_of(small_spec())
    content = onnx_from_checkpoint(checkpoint)
    texts = re.findall(rb"[ -~]{6,}", content)
    assert not [text for text in texts if b"/home" in text or b"/usr" in text or b".py" in text or b"File " in text]
    assert not re.search(rb"20\d\d-\d\d-\d\d", content)


@pytest.mark.slow
def test_two_processes_write_equal_bytes(trained: TrainedRun, tmp_path: Path) -> None:
    program = (
        "import sys, hashlib; from pathlib import Path; from tinyres.checkpoint import load_weights;"
        "from tinyres.export.onnx import onnx_from_checkpoint;"
        "print(hashlib.sha256(onnx_from_checkpoint(load_weights(Path(sys.argv[1])))).hexdigest())"
    )
    best = str(trained.best)
    hashes = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ended = subprocess.run(
            [sys.executable, "-c", program, best], cwd=tmp_path / name, capture_output=True, text=True, check=True
        )
        hashes.add(ended.stdout)
    assert len(hashes) == 1


def broken(change: str) -> bytes:
    checkpoint, _ = checkpoint_of(small_spec())
    model = onnx.load_model_from_string(onnx_from_checkpoint(checkpoint))
    if change == "frozen batch":
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    elif change == "dropout":
        model.graph.node[-1].op_type = "Dropout"
        del model.graph.node[-1].attribute[:]
    elif change == "newer ir":
        model.ir_version = 11
    elif change == "nan weight":
        weight = model.graph.initializer[2]
        values = onnx.numpy_helper.to_array(weight).copy()
        values.flat[0] = np.nan
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    elif change == "loose end":
        model.graph.node[3].input[0] = "nowhere"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("frozen batch", "batch of image is frozen to 1"),
        ("dropout", "operations it should not: Dropout"),
        ("newer ir", "and IR 11; promised: 18 and 8"),
        ("nan weight", "is not finite"),
        ("loose end", "checker refuses"),
    ],
)
def test_a_file_that_breaks_a_promise_is_refused(change: str, message: str) -> None:
    with pytest.raises(ProofError, match=message):
        check_file(broken(change))


def test_float_tensors_can_be_the_input_instead() -> None:
    checkpoint, model = checkpoint_of(small_spec())
    session = onnxruntime.InferenceSession(
        onnx_from_checkpoint(checkpoint, input_kind="tensor"), providers=["CPUExecutionProvider"]
    )
    inputs = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        assert np.allclose(session.run(["logits"], {"image": inputs.numpy()})[0], model(inputs).numpy(), atol=1e-4)
