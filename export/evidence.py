"""The checkpoint's own answers, which every artifact is compared with; computed once a checkpoint and kept.

The images are the run's validation images where they are at hand, else drawn ones, which prove no accuracy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

import tinyres
from tinyres import environment
from tinyres.data import shapes
from tinyres.evaluation import compute_logits, reference_logits
from tinyres.export.certificate import ProofImages
from tinyres.export.golden import GoldenVectors, draw_pictures
from tinyres.export.parity import REFERENCE_IMAGES, Evidence
from tinyres.files import write_array

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tinyres.checkpoint import Checkpoint
    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress


SCHEMA = 1
"""Of what is kept; another way to compute references must not find the old ones."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """Evidence, and what it was gathered from."""

    evidence: Evidence
    images: ProofImages
    golden: GoldenVectors
    """Still without the artifact's answers."""


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
    references = _References(checkpoint, cache, progress)
    spread = min(REFERENCE_IMAGES, len(images))
    rows = (np.arange(spread) * len(images)) // max(spread, 1)
    evidence = Evidence(
        images=images,
        labels=labels,
        checkpoint=references.single(images),
        exact_rows=rows,
        exact=references.exact(images[rows]),
    )
    pictures = draw_pictures(spec)
    golden = GoldenVectors(
        pictures=pictures,
        exact=references.exact(pictures.pixels),
        checkpoint=references.single(pictures.pixels),
        artifact=np.empty((0, spec.classes), dtype=np.float32),
    )
    whole = dataset is not None and len(images) == len(dataset.val)
    chosen_images = ProofImages(kind, fingerprint, split, len(images), len(rows), _digest(images), whole)
    return Gathered(evidence, chosen_images, golden)


class _References:
    """A checkpoint's logits for some images, kept by the hashes of both."""

    def __init__(self, checkpoint: Checkpoint, cache: Path, progress: Progress) -> None:
        self._checkpoint, self._cache, self._progress = checkpoint, cache, progress
        self._model = checkpoint.model()

    def exact(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """In float64."""
        return self._kept("float64", images, reference_logits).astype(np.float64)

    def single(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """In float32."""
        return self._kept("float32", images, compute_logits).astype(np.float32)

    def _kept(
        self, kind: str, images: NDArray[np.uint8], compute: Callable[..., NDArray[np.floating]]
    ) -> NDArray[np.floating]:
        shape = (len(images), self._checkpoint.spec.classes)
        if not len(images):
            return np.empty(shape)
        # All that could change the answer: float32 also depends on the processor's kernels.
        versions = (SCHEMA, tinyres.__version__, torch.__version__, torch.get_num_threads(), environment.capture().cpu)
        parts = "|".join(map(str, (self._checkpoint.sha256, _digest(images), kind, *versions)))
        path = self._cache / f"{hashlib.sha256(parts.encode()).hexdigest()[:32]}.npy"
        try:
            kept: NDArray[np.floating] = np.load(path, allow_pickle=False)
        except Exception:  # noqa: BLE001 - absent, or damaged, of which NumPy raises much: computed anew
            kept = np.empty(0)
        if kept.shape == shape and np.isfinite(kept).all():
            return kept
        with self._progress.task(f"{kind} reference", len(images), "images") as task:
            computed = compute(self._model, images, self._checkpoint.spec.preprocess, task=task)
        write_array(path, computed)
        return computed


def _digest(images: NDArray[np.uint8]) -> str:
    return hashlib.sha256(images.tobytes()).hexdigest()
