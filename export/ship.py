"""From a finished run to shipped weights: `python -m tinyres.export.ship RUN FOLDER DATA`, for maintainers.

The folder becomes that of a run with its last epoch's weights alone, convolutions and classifier in half precision,
and the certificate of their export over every validation picture. How the folder is found: tinyres.weights.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tinyres import records
from tinyres.checkpoint import load_weights, save_tensors
from tinyres.console import Console
from tinyres.data.dataset import open_dataset
from tinyres.data.sources import NAMED
from tinyres.errors import TinyresError, UsageError
from tinyres.export.certificate import certificate_path
from tinyres.export.pipeline import export_onnx
from tinyres.files import write_bytes
from tinyres.runs import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from tinyres.export.certificate import Certificate
    from tinyres.progress import Progress

KEPT = ("env.json", "state.json", "history.json", "training_history.json", "summary.json", "curves.png")
"""Of the run's files; config.json goes along without the place of the data."""


def ship(run: Run, folder: Path, data: str, *, cache_dir: Path | None = None, progress: Progress) -> Certificate:
    """Write `folder` from a finished run, and prove its export over the whole validation split of `data`.

    Errors: UsageError if the run is not finished or its data is not one that everybody can name; ProofError.
    """
    config = run.config()
    if run.state().state != "finished":
        raise UsageError(f"the run {run.name} is not finished")
    if config.data_kind not in NAMED:
        raise UsageError(f"the run {run.name} was trained on data of its own; valid: {', '.join(NAMED)}")
    checkpoint = load_weights(run.final)
    dataset = open_dataset(
        data, image_size=checkpoint.spec.preprocess.image_size, cache_dir=cache_dir, progress=progress
    )
    with tempfile.TemporaryDirectory() as temporary:  # a proof that fails leaves what was there before
        staged = Path(temporary) / folder.name
        staged.mkdir()
        for name in KEPT:
            write_bytes(staged / name, (run.path / name).read_bytes())
        records.save(staged / "config.json", replace(config, name=folder.name, data=config.data_kind))
        weights = Run(staged).final
        origin = replace(checkpoint.origin, run=folder.name)
        save_tensors(weights, halved(checkpoint.tensors), checkpoint.spec, origin)
        exported = export_onnx(
            weights,
            Path(temporary) / "export" / "fp32.onnx",
            dataset=dataset,
            proof_images=len(dataset.val),
            cache_dir=cache_dir,
            progress=progress,
        )
        shutil.copy(exported.certificate_file, certificate_path(staged / "fp32.onnx"))
        shutil.copytree(staged, folder, dirs_exist_ok=True)  # beside its notice
    return exported.certificate


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with every matrix and kernel rounded to half precision, vectors and counters as they were.

    Biases and batch norms are a hundredth of the bytes, and a small variance would lose its digits.
    """
    return {name: tensor.to(torch.float16) if tensor.ndim > 1 else tensor for name, tensor in tensors.items()}


def main() -> None:
    """Take the three arguments."""
    if len(sys.argv) != 4:
        raise SystemExit("usage: python -m tinyres.export.ship RUN FOLDER DATA")
    run, folder, data = sys.argv[1:]
    progress = Console()
    try:
        certificate = ship(Run(Path(run)), Path(folder), data, progress=progress)
    except TinyresError as exc:
        raise SystemExit(f"error: {exc}") from exc
    for level in certificate.levels:
        progress.log(f"{level.name:12} {level.detail}")


if __name__ == "__main__":
    main()
