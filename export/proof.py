"""One run over all levels of the proof: at export over the run's images, in `verify` over the golden vectors.

It needs the artifact, its backend and known answers, and no PyTorch. It returns what it finds and publishes nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyres.decode import pixels_from_bytes
from tinyres.errors import BackendUnavailable, ImageError, TinyresError
from tinyres.export import parity
from tinyres.export.certificate import Flip, Level
from tinyres.runtime.backends import open_runner
from tinyres.runtime.classifier import Classifier
from tinyres.runtime.runner import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyres.export.golden import GoldenPictures
    from tinyres.export.limits import Limits
    from tinyres.export.parity import Evidence
    from tinyres.progress import Progress
    from tinyres.runtime.runner import Runner

Batches = tuple[int, int, int]
"""Least, usual, most."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the levels found."""

    levels: tuple[Level, ...]
    flips: tuple[Flip, ...]
    backend: str
    device: str
    precision: Precision | None
    """None if the backend did not even open."""
    golden_answers: NDArray[np.float32]
    """(N, C), empty if there were none."""


def judge_artifact(
    path: Path,
    evidence: Evidence,
    golden: GoldenPictures,
    golden_evidence: Evidence,
    *,
    limits: Limits,
    batches: Batches,
    backend: str | None = None,
    recorded: NDArray[np.float32] | None = None,
    progress: Progress,
) -> Judged:
    """Open the artifact and judge every level. Whatever goes wrong on the way is a level that failed.

    `recorded` are the artifact's own answers to the golden pictures when it was exported, if it was.
    """
    nothing = np.empty((0, 0), dtype=np.float32)
    try:
        runner = open_runner(path, backend=backend, unproven=True)
    except BackendUnavailable as exc:
        told = f"{exc} ({exc.hint})" if exc.hint else str(exc)
        return Judged((Level.failed("backend", told),), (), backend or "", "", None, nothing)
    except TinyresError as exc:
        return Judged((Level.failed("file", str(exc)),), (), backend or "", "", None, nothing)
    with runner:
        flips: tuple[Flip, ...] = ()
        golden_answers = nothing
        levels: list[Level] = []
        try:
            answers = answer_all(runner, evidence.images, batches[1], progress)
            golden_answers = answer_all(runner, golden.pixels, batches[1], progress)
            levels.append(parity.numeric(evidence, answers, limits))
            levels.append(parity.decision(evidence, answers, limits))
            levels.append(parity.accuracy(evidence, answers, limits))
            levels.append(_consistency(evidence, runner, answers, batches, limits))
            levels.append(entry(runner, golden, golden_evidence, golden_answers, evidence.signal, limits, recorded))
            if answers.shape == evidence.checkpoint.shape:
                flips = tuple(parity.find_flips(evidence, answers))
            # A Runner reads back from its library where it runs, and refuses to open on a fallback.
            opened = f"{runner.name} on {runner.device}, {runner.precision}"
            levels.append(Level.judged("backend", True, {}, {}, opened))
        except BackendUnavailable as exc:
            levels.append(Level.failed("backend", str(exc)))
        except TinyresError as exc:
            levels.append(Level.failed("file", str(exc)))
        return Judged(tuple(levels), flips, runner.name, runner.device, runner.precision, golden_answers)


def answer_all(runner: Runner, images: NDArray[np.uint8], batch: int, progress: Progress) -> NDArray[np.float32]:
    """Logits (N, C) of all images, in batches; (0, C) for none."""
    parts = [np.empty((0, runner.spec.classes), dtype=np.float32)]
    with progress.task("proving", len(images), "images") as task:
        for start in range(0, len(images), batch):
            parts.append(runner(images[start : start + batch]))
            task.advance(len(parts[-1]))
    return np.concatenate(parts)


def entry(
    runner: Runner,
    golden: GoldenPictures,
    evidence: Evidence,
    answers: NDArray[np.float32],
    real_signal: float,
    limits: Limits,
    recorded: NDArray[np.float32] | None = None,
) -> Level:
    """From a picture file to a label, by the decode and the classes that a user's program takes.

    `evidence` and `answers` are of the golden pictures; `real_signal` is that of the images the proof is over. The
    label wanted is the checkpoint's; of a precision that may change some, that of the answers `recorded` at export, or
    at export itself that of the pixels.
    """
    for number, (png, pixels) in enumerate(zip(golden.pngs, golden.pixels, strict=True)):
        try:
            same = (pixels_from_bytes(png, runner.spec.preprocess) == pixels).all()
        except ImageError:
            same = False
        if not same:
            return Level.failed("entry", f"golden picture {number} does not decode to its pixels here")
    if answers.shape != evidence.checkpoint.shape or not np.isfinite(answers).all():
        return Level.failed("entry", "no complete set of finite answers for the golden pictures")
    with tempfile.TemporaryDirectory(prefix="tinyres-entry-") as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(len(golden.pngs))]
        for path, png in zip(paths, golden.pngs, strict=True):
            path.write_bytes(png)
        labels = [prediction.best[0].id for prediction in Classifier(runner, top=1, batch=1)(paths)]
    reference, whose = evidence.checkpoint, "the checkpoint's"
    if limits.agreement < 1:
        reference, whose = (answers, "their pixels'") if recorded is None else (recorded, "the export's")
    flips = {flip.image: flip for flip in parity.find_flips(replace(evidence, checkpoint=reference), answers)}
    wanted = [runner.spec.class_ids[index] for index in reference.argmax(axis=1)]
    wrong = [n for n, label in enumerate(labels) if label != wanted[n] and not (n in flips and flips[n].tie)]
    carried = parity.share(evidence.signal, real_signal)
    measured = {"pictures": len(labels), "wrong": len(wrong), "signal": carried}
    allowed = {"wrong": 0, "signal": parity.GOLDEN_SIGNAL}
    if carried < parity.GOLDEN_SIGNAL:
        detail = f"the golden pictures carry {carried:.1%} of the real images' signal: too little to show an error"
        return Level.judged("entry", False, measured, allowed, detail)
    if limits.rounded and recorded is None and (own := evidence.error(answers)) > parity.MOST_ROUNDED:
        detail = f"the golden pictures' answers are off by {own:.0%} of their signal: too much to show an error"
        return Level.judged("entry", False, measured, allowed, detail)
    detail = f"{len(labels) - len(wrong)} of {len(labels)} picture files get {whose} label"
    return Level.judged("entry", not wrong and len(labels) > 0, measured, allowed, detail)


def _consistency(
    evidence: Evidence, runner: Runner, answers: NDArray[np.float32], batches: Batches, limits: Limits
) -> Level:
    if not len(answers):
        return Level.failed("consistency", "no image to try")
    least, usual, most = batches
    between = (usual + most) // 2 - 1 if most - usual > 2 else usual
    return parity.consistency(evidence, runner, answers, tuple(sorted({least, usual, between, most})), limits)
