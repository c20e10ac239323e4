"""The examples of CONTRIBUTING are what they say: each is one file, and works once it is named in its one place."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import REPOSITORY
from drawn_results import ALL

from tinyres.data.sources import find_source
from tinyres.export.artifact import Exported
from tinyres.runtime.backends import BACKENDS, BackendInfo, open_runner
from tinyres.spec import Preprocess

PAGE = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


def examples(heading: str) -> list[str]:
    section = PAGE.partition(f"### {heading}\n")[2].partition("\n##")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def module(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, made)
    exec(compile(source, name, "exec"), made.__dict__)  # noqa: S102 - the page's own program
    return made


def test_a_backend_is_one_file_and_a_line(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    source, line = examples("A backend")
    module("tinyres.runtime.onnx_reference", source, monkeypatch)
    ((name, info),) = eval(f"{{{line}}}", {"BackendInfo": BackendInfo}).items()  # noqa: S307 - the page's own line
    monkeypatch.setitem(BACKENDS, name, info)
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    with open_runner(exported.path, backend=name) as runner, open_runner(exported.path) as usual:
        assert runner.name == "onnx-reference"
        np.testing.assert_allclose(runner(images), usual(images), atol=1e-4)


def test_a_precision_is_the_row_that_is_shown() -> None:
    (line,) = examples("A precision")
    assert f"    {line}" in (REPOSITORY / "export" / "precisions.py").read_text(encoding="utf-8")


def test_a_data_source_is_one_class(picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = examples("A data source")
    rows = [
        f"{split},{path.parent.name},{path}"
        for split in ("train", "val")
        for path in sorted((picture_folder / split).rglob("*.png"))
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    listing = module("listing", source, monkeypatch).Listing(tmp_path / "list.csv")
    folder = find_source(str(picture_folder))
    assert listing.class_names == folder.class_names
    preprocess = Preprocess(image_size=16)
    by_name = {Path(folder.name_of("val", n)).name: n for n in range(15)}
    for n in range(15):
        same = by_name[Path(listing.name_of("val", n)).name]
        assert listing.labels("val")[n] == folder.labels("val")[same]
        np.testing.assert_array_equal(listing.pixels("val", n, preprocess), folder.pixels("val", same, preprocess))


def test_a_report_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = examples("A report")
    text = module("latex", source, monkeypatch).latex(ALL)
    assert text.count(r"\begin{tabular}{llllllllll}") == len(ALL.batches)
    assert re.search(r"^onnxruntime-cpu fp32 & 3", text, re.MULTILINE)
    assert "%" not in re.sub(r"\\%", "", text)
