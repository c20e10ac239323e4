"""What in the data makes a result worth less, said before a training begins. It refuses nothing."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from tinyres.data.dataset import count_seen, find_cached
from tinyres.errors import DataError
from tinyres.metrics import wilson_interval
from tinyres.units import counted

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.data.dataset import Dataset
    from tinyres.progress import Progress
    from tinyres.training.launch import Start, Started

UNEVEN = 2.0
"""From this ratio of the fullest class to the emptiest on, a user should know."""
TELLING = 0.1
"""A 95 % interval wider than this says little about a model."""


def warn_of_data(started: Started, progress: Progress) -> None:
    """Of uneven classes, and of pictures to judge on that tell little: few, not of all classes, or trained on too."""
    dataset, names = started.dataset, started.config.spec.class_names
    counts = np.bincount(np.asarray(dataset.train.labels), minlength=len(names))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] >= UNEVEN * counts[least]:
        progress.warn(
            f"uneven classes: {counts[most]:,} pictures of {names[most]}, {counts[least]:,} of {names[least]};"
            " a model learns to answer with the common ones; more pictures of the rare, or fewer of the common, mend it"
        )
    judged_each = np.bincount(np.asarray(dataset.val.labels), minlength=len(names))
    if unjudged := [names[index] for index in np.flatnonzero(judged_each == 0)]:
        more = f" and {len(unjudged) - 3:,} more" if len(unjudged) > 3 else ""
        progress.warn(f"no picture to judge on of {', '.join(unjudged[:3])}{more}")
    # Tiny ImageNet has a few too, which nobody takes out; of its size, counting takes seconds.
    if dataset.manifest.kind not in ("tiny-imagenet", "shapes") and (seen := count_seen(dataset.val, dataset.train)):
        progress.warn(
            f"{seen:,} of {len(dataset.val):,} pictures to judge on are to be trained on too: copies of the same ones"
        )
    judged = len(dataset.val)
    low, high = wilson_interval(round(judged * 0.8), judged)
    if high - low > TELLING:
        progress.warn(
            f"{counted(judged, 'picture')} to judge on: an accuracy of 80 % would lie between {low:.0%} and {high:.0%}"
            " (95 %)"
        )


def warn_of_seen_pictures(start: Start, dataset: Dataset, root: Path, progress: Progress) -> None:
    """Say how many pictures to judge on the model was trained on; or that some may be, where its own are not here."""
    origin, manifest = start.origin, dataset.manifest
    if origin.data_fingerprint == manifest.fingerprint:
        return
    before = None
    with suppress(DataError):  # a damaged cache of other data is not this training's matter
        before = find_cached(origin.data_kind, origin.data_fingerprint, root, name=start.name)
    what = ""
    if before is not None and before.manifest.image_size == manifest.image_size:
        if seen := count_seen(dataset.val, before.train):
            what = f"{seen:,} of {len(dataset.val):,} pictures to judge on are"
    elif origin.data_kind == manifest.kind == "folders-split":
        what = "pictures to judge on may be"
    if what:
        progress.warn(f"{what} among those that {start.name} was trained on: the accuracy may come out too high")
