from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import TrainedRun

from tinyres import records
from tinyres.checkpoint import load_weights
from tinyres.data.augment import normalize
from tinyres.training import summary as summary_module
from tinyres.training.summary import Summary, describe_summary, summarize

CPU = torch.device("cpu")


def made(trained: TrainedRun, *, images_per_second: float = 1e6) -> Summary:
    started = trained.started
    history = [replace(epoch, images_per_second=images_per_second) for epoch in started.run.history()]
    return summarize(started.run, started.config, started.dataset, history, device=CPU)


def test_the_headline_is_the_last_epoch_and_the_best_stands_beside_it(trained: TrainedRun) -> None:
    found, history = made(trained), trained.started.run.history()
    best = max(history, key=lambda epoch: (epoch.val_acc, epoch.epoch))
    assert (found.last.epoch, found.last.accuracy.top1) == (3, pytest.approx(history[-1].val_acc))
    assert (found.best.epoch, found.best.accuracy.top1) == (best.epoch, pytest.approx(best.val_acc))
    assert found.train_seconds == pytest.approx(sum(epoch.seconds for epoch in history))
    saved = records.load(Summary, trained.started.run.path / "summary.json")
    assert saved == found


def test_mirrored_averages_the_logits_of_both_images(trained: TrainedRun) -> None:
    val, spec = trained.started.dataset.val, trained.started.config.spec
    model = load_weights(trained.started.run.final).model()
    pixels = np.asarray(val.images)
    with torch.inference_mode():
        both = [
            model(normalize(torch.from_numpy(side.copy()), spec.preprocess)) for side in (pixels, pixels[:, :, ::-1])
        ]
    right = int(((both[0] + both[1]).argmax(dim=1).numpy() == val.labels).sum())
    mirrored = made(trained).last.mirrored
    assert mirrored is not None
    assert mirrored.correct == right


def test_mirrored_pictures_are_left_out_where_they_take_too_long(
    trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made(trained, images_per_second=0.001)
    assert found.last.mirrored is None
    assert "TTA" not in describe_summary(found)
    monkeypatch.setattr(summary_module, "CHEAP_S", 1e9)
    assert made(trained, images_per_second=0.001).last.mirrored is not None


def test_the_words_name_interval_selection_and_the_hardest_classes(trained: TrainedRun) -> None:
    found = made(trained)
    text = describe_summary(replace(found, hardest=(replace(found.hardest[0], mistaken_for="ring, circle"),)))
    assert "last epoch 3: " in text
    assert "% top-1 of 15 val images (95 %: " in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "selected on the same images" in text
    assert text.splitlines()[-1].endswith("right, often taken for ring")
