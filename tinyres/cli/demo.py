"""What `tinyres demo` adds to the commands it joins: the picture it classifies, and what to say at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyres.files import atomic_path
from tinyres.runs import DEMO_RUN, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tinyres.console import Console

STAR = 5
"""The number of a golden picture that shows a star."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made."""

    run: str
    accuracy: float
    """Of the best epoch, on drawn pictures."""


def walk(out: Console, home: Path, steps: Mapping[str, Callable[[], int | None]]) -> int:
    """Take the steps one by one into the run `home`, and say where everything lies; the first that fails ends it."""
    with out.steps():
        for number, (name, step) in enumerate(steps.items(), start=1):
            out.log(f"\n{number}/{len(steps)} {name}")
            if code := step():
                return code
    best = max(epoch.val_acc for epoch in Run(home).history())
    out.result(
        DemoResult(str(home), best),
        f"\nAll of it lies in {home}: best.safetensors, curves.png, export/fp32.onnx with its"
        f"\ncertificate fp32.onnx.json, bench/report.html. It is a toy on drawn pictures: {best:.1%} says"
        "\nnothing about real ones.",
        f"tinyres predict YOUR.png --model {DEMO_RUN}",
        "tinyres train --data FOLDER --recipe demo   (a folder of pictures per class)",
        "tinyres train                               (Tiny ImageNet)",
    )
    return 0


def draw_star(path: Path) -> Path:
    """Draw the picture to classify, one that the model was not trained on, as PNG."""
    from PIL import Image

    from tinyres.data.shapes import render

    with atomic_path(path) as temporary:
        Image.fromarray(render("golden", STAR)).save(temporary)
    return path
