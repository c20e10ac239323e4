"""What a person sees of a running training: a note beside the bar, a line an epoch, curves, TensorBoard if asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tinyres.drawing import draw_curves
from tinyres.errors import missing_extra
from tinyres.schedules import learning_rate, picture_size
from tinyres.units import duration

if TYPE_CHECKING:
    from tinyres.progress import Progress
    from tinyres.recipes import Recipe
    from tinyres.runs import Epoch, Run
    from tinyres.training.pace import Pace
    from tinyres.training.sums import Sums

DRAW_EVERY_S = 10.0
"""A picture takes a third of a second, and a small network's epoch no more."""
ESTIMATE_AFTER_S = 5.0
SLOW_STEPS_S = 20.0
"""Steps that take so long are known well enough before the fourth."""
LONG_RUN_S = 24 * 3600.0


class Watch:
    """Tells `progress` and the run's folder how a training goes. It changes nothing of it."""

    def __init__(self, run: Run, recipe: Recipe, pace: Pace, progress: Progress, *, tensorboard: bool = False) -> None:
        self._run, self._recipe, self._pace, self._progress = run, recipe, pace, progress
        self._drawn = -DRAW_EVERY_S
        self._estimated = False
        self._board = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as exc:
                raise missing_extra("--tensorboard", "tensorboard", "tensorboard") from exc
            self._board = SummaryWriter(str(run.path / "tensorboard"))

    def note(self, sums: Sums, step: int, per_epoch: int) -> str:
        """The state in a few words. It waits for the device."""
        rate = learning_rate(self._recipe, step, per_epoch)
        return (
            f"epoch {step // per_epoch + 1}/{self._recipe.epochs} loss {sums.mean_loss():.3f}"
            f" acc {sums.accuracy():.1%} lr {rate:.3g} {self._pace.images_per_second:.0f} images/s"
        )

    def seconds_left(self, *, step: int, per_epoch: int, train_images: int, judged_images: int) -> float:
        """How long the rest takes at the present pace, with pictures that grow: what one costs goes by its area."""
        epoch, within = divmod(step, per_epoch)
        areas = [picture_size(self._recipe, later) ** 2 for later in range(epoch, self._recipe.epochs)]
        if not areas:
            return 0.0
        trained = train_images * (sum(areas) / areas[0] - within / per_epoch)
        judged = len(areas) * judged_images * self._recipe.image_size**2 / areas[0]
        return self._pace.seconds_for(train_images=trained, judged_images=round(judged))

    def estimate(self, seconds: float) -> None:
        """Say once, after the first steps, how long the whole will take."""
        pace = self._pace
        if self._estimated or pace.seconds < ESTIMATE_AFTER_S or (pace.steps < 4 and pace.seconds < SLOW_STEPS_S):
            return
        self._estimated = True
        rate = f"{self._pace.images_per_second:.0f} images/s"
        self._progress.log(f"the whole will take about {duration(seconds)} at {rate}")
        if pace.left_s is not None and seconds > pace.left_s:
            share = max(0.0, pace.left_s) / seconds
            fitting = max(1, int(share * self._recipe.epochs))
            self._progress.warn(
                f"about {share:.0%} of it fits into --max-time: the learning rate will not have come down by then;"
                f" --set epochs={fitting} is a training that ends"
            )
        elif seconds > LONG_RUN_S:
            self._progress.warn(
                f"{duration(seconds)} is long: stop at any time and go on with --resume {self._run.name},"
                " give --max-time, take --recipe nano, or use a GPU"
            )

    def epoch(self, history: list[Epoch], *, judged_on: str, judged_of: int) -> None:
        """Report the last line of `history`."""
        last = history[-1]
        few = "" if last.val_images == judged_of else f" (on {last.val_images} images)"
        size = picture_size(self._recipe, last.epoch - 1)
        small = f" at {size}x{size}" if size != self._recipe.image_size else ""
        self._progress.log(
            f"epoch {last.epoch}/{self._recipe.epochs}{'' if last.complete else ' (stopped inside)'}:"
            f" train loss {last.train_loss:.3f} acc {last.train_acc:.1%},"
            f" {judged_on} loss {last.val_loss:.3f} acc {last.val_acc:.1%}{few},"
            f" {last.images_per_second:.0f} images/s{small}"
        )
        ended = not last.complete or last.epoch == self._recipe.epochs
        if ended or time.monotonic() - self._drawn > DRAW_EVERY_S:
            draw_curves(self._run.path / "curves.png", {self._run.name: history})
            self._drawn = time.monotonic()
        if self._board is not None:
            for name in ("train_loss", "train_acc", "val_loss", "val_acc", "lr", "images_per_second"):
                tag = name.replace("_", "/", 1) if name.startswith(("train", "val")) else name
                self._board.add_scalar(tag, getattr(last, name), last.step)
            self._board.flush()
            if ended:
                self._board.close()
