"""What a prompt or a notebook shows of what is returned: short, and with the names of strangers as text."""

from __future__ import annotations

from dataclasses import replace

from tiny import small_spec

from tinyres import ModelSpec, Prediction
from tinyres.export.artifact import Exported
from tinyres.export.certificate import Flip
from tinyres.export.diff import Difference
from tinyres.export.triton import Repository, Throughput
from tinyres.export.verify import verify
from tinyres.metrics import Accuracy
from tinyres.progress import Silent
from tinyres.runtime.classifier import Guess


def test_a_spec_shows_some_of_its_classes() -> None:
    names = tuple(f"class {number}" for number in range(200))
    assert repr(ModelSpec(names, names)) == (
        "ModelSpec(200 classes: 'class 0', 'class 1', 'class 2', ...; blocks=(3, 4, 6, 3), widths=(64, 128, 256, 512),"
        " dropout=0.4, image_size=64)"
    )
    assert repr(small_spec()).startswith("ModelSpec(3 classes: 'a', 'b', 'c'; blocks=(1, 2), ")


def test_a_prediction_is_a_line_and_in_a_notebook_a_table() -> None:
    found = Prediction((Guess("1", "a <b>", 0.9512), Guess("2", "c", 0.0488)))
    assert repr(found) == "Prediction('a <b>' 95.1%, 'c' 4.9%)"
    assert found._repr_html_() == (
        "<table><tr><td>95.1%</td><td>a &lt;b&gt;</td></tr><tr><td>4.9%</td><td>c</td></tr></table>"
    )


def test_a_verified_file_shows_its_levels(exported: Exported) -> None:
    found = verify(exported.path, progress=Silent())
    assert repr(found).startswith(f"Verified({str(exported.path)!r}: passed numeric, ")
    assert len(repr(found)) < len(str(exported.path)) + 120
    odd = replace(found, levels=(replace(found.levels[0], detail="<i>"),))
    assert ">&lt;i&gt;</td>" in odd._repr_html_()


def test_a_difference_shows_counts_and_in_a_notebook_what_the_command_says() -> None:
    flips = tuple(Flip(number, 0, 0, 1, 0.5, tie=False) for number in range(50))
    right = Accuracy(1000, 600, 900, 0.57, 0.63)
    found = Difference(1000, "<b>", 0.01, 0.2, flips, right, right, 0.0, -0.01, 0.01)
    assert repr(found) == "Difference(1,000 images (<b>): same class for 95.00%, 50 flipped, top-1 +0.00 pt)"
    assert repr(replace(found, change=None)).endswith("50 flipped)")
    assert "1000 images (&lt;b&gt;)\n" in found._repr_html_()


def test_a_repository_says_what_it_serves(exported: Exported) -> None:
    found = Repository(exported.path.parent, "mine", Throughput({1: 2.0}, "here"), exported.certificate)
    folder = str(exported.path.parent)
    assert repr(found) == f"Repository({folder!r}: serves 'mine' from fp32.onnx, proven (full))"
