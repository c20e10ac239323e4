"""How far correct conversions of a trained model are from it: `python -m tinyres.bench.studies.limits MODEL DATA`.

Prints one JSON text: for fp32, fp16 and bf16 what several independent, correct ways to compute in that precision differ
by from float64 on real pictures, and what a coarser precision does that passes itself off as it. The limits in
`tinyres.export.limits` are three times the worst correct one.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock

from tinyres import environment, records
from tinyres.checkpoint import load_weights
from tinyres.data.augment import normalize
from tinyres.data.dataset import open_dataset
from tinyres.evaluation import compute_logits, reference_logits
from tinyres.export import parity
from tinyres.export.limits import Limits
from tinyres.export.onnx import onnx_from_checkpoint
from tinyres.progress import Silent
from tinyres.runs import find_model
from tinyres.runtime import open_runner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from tinyres.checkpoint import Checkpoint
    from tinyres.model import ResNet
    from tinyres.spec import Preprocess

    Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

IMAGES, EXACT = 2000, 512
BATCHES = (1, 7, 32, 100)
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
ANY = Limits(numeric_floors=float("inf"), agreement=0.0, accuracy_drop=1.0, images=IMAGES)
"""Limits that judge nothing: only the measured values count here."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """One way to compute the model."""

    precision: str
    name: str
    answer: Answer
    correct: bool = True
    """False for one that is coarser than what it is called."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a conversion's answers differ by; without numbers where one is not finite."""

    precision: str
    conversion: str
    correct: bool
    error: float
    """RMS against float64, as a share of the signal."""
    max_abs: float
    agreement: float
    """Share of pictures with the checkpoint's class, ties left out."""
    flips: int
    ties: int
    accuracy: float
    difference: float
    """In accuracy, to the checkpoint's."""
    worst_row: float
    """Largest change of a picture's logits with batch and neighbours, as a share of the signal."""


def main() -> None:
    """Measure the model that the arguments name, on the data that they name."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m tinyres.bench.studies.limits MODEL DATA")
    name, data = sys.argv[1:]
    checkpoint = load_weights(find_model(name, Path("runs")).path)
    dataset = open_dataset(data, image_size=checkpoint.spec.preprocess.image_size, cache_dir=None, progress=Silent())
    chosen = dataset.val.spread(IMAGES)
    images = np.array(chosen.images)
    model, preprocess = checkpoint.model(), checkpoint.spec.preprocess
    rows = (np.arange(EXACT) * len(images)) // EXACT
    evidence = parity.Evidence(
        images=images,
        labels=np.array(chosen.labels),
        checkpoint=compute_logits(model, images, preprocess),
        exact_rows=rows,
        exact=reference_logits(model, images[rows], preprocess),
    )
    with tempfile.TemporaryDirectory() as folder:
        artifact, bare = Path(folder) / "fp32.onnx", Path(folder) / "tensor.onnx"
        artifact.write_bytes(onnx_from_checkpoint(checkpoint))
        bare.write_bytes(onnx_from_checkpoint(checkpoint, input_kind="tensor"))
        judged = [_judge(evidence, conversion) for conversion in _conversions(checkpoint, artifact, bare)]
    whole = {
        "command": environment.command_line(),
        "environment": environment.capture(),
        "checkpoint_sha256": checkpoint.sha256,
        "data": dataset.manifest.kind,
        "images": IMAGES,
        "exact_images": EXACT,
        "floor": evidence.floor,
        "signal": evidence.signal,
        "signal_share": evidence.signal / parity.rms(evidence.exact),
        "tie_margin": evidence.tie_margin,
        "worst_correct": {
            precision: max(row.error for row in judged if row.correct and row.precision == precision)
            for precision in ("fp32", *HALVES)
        },
        "conversions": judged,
    }
    print(records.to_json(whole))


def _judge(evidence: parity.Evidence, conversion: Conversion) -> Measured:
    answers = conversion.answer(evidence.images)
    levels = (
        parity.numeric(evidence, answers, ANY),
        parity.decision(evidence, answers, ANY),
        parity.accuracy(evidence, answers, ANY),
        parity.consistency(evidence, conversion.answer, answers, BATCHES, ANY),
    )
    found: dict[str, Any] = {}
    for level in levels:
        found |= level.measured
    return Measured(
        conversion.precision,
        conversion.name,
        conversion.correct,
        error=found["error"],
        max_abs=found["max_abs"],
        agreement=found["agreement"],
        flips=found["flips"],
        ties=found["ties"],
        accuracy=found["artifact"],
        difference=found["difference"],
        worst_row=found["worst_row"],
    )


def _conversions(checkpoint: Checkpoint, artifact: Path, bare: Path) -> Iterator[Conversion]:
    """All of them; `artifact` is the exported file, `bare` the same without preprocessing, which stays in float32."""
    model, preprocess = checkpoint.model(), checkpoint.spec.preprocess
    pytorch = functools.partial(_pytorch, preprocess=preprocess)
    folded = _folded(model)
    channels_last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    yield Conversion("fp32", "PyTorch, channels last", pytorch(channels_last))
    yield Conversion("fp32", "PyTorch, batch norms folded", pytorch(folded))
    yield Conversion("fp32", "ONNX Runtime, the exported file", open_runner(artifact))
    yield from _openvino(bare, "fp32", preprocess)
    yield Conversion("fp32", "weights stored as TF32", pytorch(_stored(folded, _as_tf32)), correct=False)
    for precision, dtype in HALVES.items():
        stored = _stored(folded, functools.partial(_as, dtype=dtype))
        yield Conversion(precision, "PyTorch, folded weights stored, fp32 computed", pytorch(stored))
        yield Conversion(precision, "PyTorch, batch norms kept", pytorch(copy.deepcopy(model).to(dtype), dtype=dtype))
        yield Conversion(
            precision, "PyTorch, batch norms folded", pytorch(copy.deepcopy(folded).to(dtype), dtype=dtype)
        )
        yield Conversion(precision, "PyTorch autocast", pytorch(model, autocast=dtype))
        yield from _openvino(bare, precision, preprocess)
    bf16 = pytorch(copy.deepcopy(folded).to(torch.bfloat16), dtype=torch.bfloat16)
    yield Conversion("fp16", "bf16 called fp16", bf16, correct=False)
    fp8 = _stored(folded, functools.partial(_as, dtype=torch.float8_e4m3fn))
    yield Conversion("bf16", "weights stored as 8-bit floats", pytorch(fp8), correct=False)


def _pytorch(
    model: nn.Module, *, preprocess: Preprocess, dtype: torch.dtype = torch.float32, autocast: torch.dtype | None = None
) -> Answer:
    """`model` on pictures that are normalised in float32, and become `dtype` only then."""

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = []
        with torch.inference_mode(), torch.autocast("cpu", autocast) if autocast else nullcontext():
            for start in range(0, len(images), 100):
                pixels = torch.from_numpy(np.array(images[start : start + 100]))
                parts.append(model(normalize(pixels, preprocess, dtype=torch.float32).to(dtype)).float())
        logits: NDArray[np.float32] = torch.cat(parts).numpy()
        return logits

    return answer


def _openvino(bare: Path, precision: str, preprocess: Preprocess) -> Iterator[Conversion]:
    """OpenVINO on a file that takes normalised pictures; nothing where it computes in another precision than asked."""
    if importlib.util.find_spec("openvino") is None:
        print(f"left out: OpenVINO in {precision}, since it is not installed", file=sys.stderr)
        return
    import openvino

    hint = {"fp32": "f32", "fp16": "f16"}.get(precision, precision)
    compiled = openvino.Core().compile_model(str(bare), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    computed = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if computed != hint:
        print(f"left out: OpenVINO in {precision}, since this CPU computes it in {computed}", file=sys.stderr)
        return

    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        batches = (torch.from_numpy(np.array(images[start : start + 100])) for start in range(0, len(images), 100))
        parts = [compiled(normalize(pixels, preprocess).contiguous().numpy())["logits"] for pixels in batches]
        logits: NDArray[np.float32] = np.concatenate(parts)
        return logits

    yield Conversion(precision, "OpenVINO", answer)


def _folded(model: ResNet) -> nn.Module:
    """A copy with every batch norm in its convolution, in float64 and rounded once."""
    exact = copy.deepcopy(model).double().eval()
    exact.conv1, exact.bn1 = _fused(exact.conv1, exact.bn1)
    for block in exact.modules():
        if isinstance(block, BasicBlock):
            block.conv1, block.bn1 = _fused(block.conv1, block.bn1)
            block.conv2, block.bn2 = _fused(block.conv2, block.bn2)
            if block.downsample is not None:
                block.downsample = nn.Sequential(*_fused(*block.downsample))
    return exact.float()


def _fused(conv: Any, norm: Any) -> tuple[Any, Any]:
    return fuse_conv_bn_eval(conv, norm), nn.Identity()


def _stored(model: nn.Module, rounded: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A copy whose weights have been through another format."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.copy_(rounded(weight))
    return copied


def _as(weight: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
    return weight.to(dtype)


def _as_tf32(weight: torch.Tensor) -> torch.Tensor:
    """Rounded to the 10 bits of TF32's mantissa."""
    bits = weight.detach().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


if __name__ == "__main__":
    main()
