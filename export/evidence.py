"""The checkpoint's own answers, which every artifact is compared with; computed once a checkpoint and kept.

The images are the run's validation images where they are at hand, else drawn ones, which prove no accuracy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tinyres.export.certificate import ProofImages
from tinyres.export.parity import REFERENCE_IMAGES, Evidence

from tinyres.data import shapes
from tinyres.evaluate import compute_logits, reference_logits
from tinyres.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.checkpoint import Checkpoint
    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress


@dataclass(frozen=True, slots=True)
class Gathered:
    """Evidence, and what it was gathered from."""

    evidence: Evidence
    images: ProofImages


def gather_evidence(
    checkpoint: Checkpoint, dataset: Dataset | None, *, count: int, cache: Path, progress: Progress
) -> Gathered:
    """Answers of `checkpoint` over `count` images at even distances in the validation split, or drawn ones.

    Errors: CheckpointError if the weights do not fit their spec; StorageError.
    """
    spec = checkpoint.spec
    if dataset is None:
        size = spec.preprocess.image_size
        images = np.stack([shapes.render("golden", index, size) for index in range(count)])
        labels = None
        kind, fingerprint, split = "generated", "", "golden"
    else:
        chosen = dataset.val.spread(count)
        images, labels = np.array(chosen.images), np.array(chosen.labels)
        kind, fingerprint, split = dataset.manifest.kind, dataset.manifest.fingerprint, dataset.judged_on
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    rows = (np.arange(min(REFERENCE_IMAGES, len(images))) * len(images)) // min(REFERENCE_IMAGES, len(images))
    model = checkpoint.model()

    def cached(kind: str, compute: Callable[[], NDArray[np.floating]]) -> NDArray[np.floating]:
        key = hashlib.sha256(f"{checkpoint.sha256}{digest}{kind}{torch.__version__}".encode()).hexdigest()[:32]
        return _load_or_compute(cache / f"{key}.npy", (len(images), spec.classes), compute)

    def exact() -> NDArray[np.floating]:
        with progress.task("float64 reference", len(rows), "images") as task:
            return reference_logits(model, images[rows], spec.preprocess, task=task)

    def single() -> NDArray[np.floating]:
        with progress.task("float32 reference", len(images), "images") as task:
            return compute_logits(model, images, spec.preprocess, task=task)

    evidence = Evidence(
        images=images,
        labels=labels,
        checkpoint=cached("float32", single).astype(np.float32),
        exact_rows=rows,
        exact=cached("float64", exact).astype(np.float64),
    )
    return Gathered(evidence, ProofImages(kind, fingerprint, split, len(images), len(rows), digest))


def _load_or_compute(
    path: Path, shape: tuple[int, int], compute: Callable[[], NDArray[np.floating]]
) -> NDArray[np.floating]:
    if path.exists():
        try:
            kept: NDArray[np.floating] = np.load(path, allow_pickle=False)
        except (OSError, ValueError):  # a damaged file is computed anew
            kept = np.empty(0)
        if kept.ndim == 2 and kept.shape[1] == shape[1] and len(kept) <= shape[0]:
            return kept
    computed = compute()
    with atomic_path(path) as temporary:
        np.save(temporary, computed)
    return computed
