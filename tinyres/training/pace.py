"""How fast a training goes, how long the rest takes, and when it has to stop: by the clock or by a signal."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

EVALUATION_SPEEDUP = 2.5
"""Judging a picture needs a forward pass alone, training about three."""
JUDGEMENT_S = 60.0
JUDGEMENT_SHARE = 0.2
"""A run that must stop keeps back this share of its time, at most JUDGEMENT_S, to judge its weights."""
LEAST_JUDGED = 100


class Pace:
    """The time spent in steps, apart from evaluation and files."""

    def __init__(self, max_seconds: float | None) -> None:
        self._started = time.monotonic()
        self._max_seconds = max_seconds
        self.steps = 0
        self.seconds = 0.0
        self.images = 0

    def add(self, images: int, seconds: float) -> None:
        """A step of so many images took so long; without images it is a wait for the device."""
        if images:
            self.steps += 1
            if self.steps == 2:  # the first step also pays for warming up, and only counts while it is all there is
                self.seconds, self.images = 0.0, 0
        self.seconds += seconds
        self.images += images

    @property
    def images_per_second(self) -> float:
        """Since this process began to train."""
        return self.images / self.seconds if self.seconds else 0.0

    def seconds_for(self, *, train_images: float, judged_images: int) -> float:
        """How long so much work takes at this pace."""
        return (train_images + judged_images / EVALUATION_SPEEDUP) / max(self.images_per_second, 1e-9)

    @property
    def left_s(self) -> float | None:
        """What is left of the time given; None if none was."""
        return None if self._max_seconds is None else self._max_seconds - (time.monotonic() - self._started)

    @property
    def reserve_s(self) -> float:
        """The time kept back for a last judgement."""
        return min(JUDGEMENT_S, JUDGEMENT_SHARE * self._max_seconds) if self._max_seconds is not None else JUDGEMENT_S

    def is_over(self) -> bool:
        """Whether the time given is used up, but for the last judgement; never before a first step."""
        if self._max_seconds is None or not self.steps:
            return False
        return time.monotonic() - self._started >= self._max_seconds - self.reserve_s

    def judgeable(self, *, in_full: bool, split_images: int) -> int:
        """How many pictures to judge: all, but no more than the time left (or the reserve, if not in full) allows."""
        if in_full and self._max_seconds is None:
            return split_images
        left = self.reserve_s
        if in_full and self.left_s is not None:
            left = max(left, self.left_s)
        return min(split_images, max(LEAST_JUDGED, int(left * self.images_per_second * EVALUATION_SPEEDUP)))


@contextmanager
def catch_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM (of a scheduler, or torchrun) into an event that the loop can look at.

    The second one acts at once.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals reach the main thread only
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(_signal: int, _frame: object) -> None:
        event.set()
        restore()

    for number in previous:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        restore()
