"""The public interface: its names, their signatures, what they say of themselves, and that a type checker sees them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

import tinyres

PUBLIC = """
Classifier(model: str | Path | Runner, *, backend: str | None = None, threads: int | None = None, top: int = 5,
    batch: int = 32)
ModelSpec(class_names: tuple[str, ...], class_ids: tuple[str, ...], blocks: tuple[int, ...] = (3, 4, 6, 3),
    widths: tuple[int, ...] = (64, 128, 256, 512), dropout: float = 0.4, preprocess: Preprocess = <factory>)
Prediction(best: tuple[Guess, ...])
Preprocess(image_size: int = 64, mean: tuple[float, float, float] = (0.4802, 0.4481, 0.3975),
    std: tuple[float, float, float] = (0.2296, 0.2263, 0.2255), color: Literal[RGB] = 'RGB',
    layout: Literal[NHWC] = 'NHWC', resize: Literal[bicubic-antialias] = 'bicubic-antialias',
    crop: Literal[center] = 'center')
Run(path: Path)
Runner(backend: Backend)
TinyresError(message: str, *, hint: str | None = None)
benchmark(model: AnyModel | None = None, *, backends: Sequence[str] | None = None, batch: int | Sequence[int] = (1, 32),
    quick: bool = False, threads: int | None = None, images: int | None = None, data: AnyPath | None = None,
    out: AnyPath | None = None, runs: AnyPath = 'runs', cache: AnyPath | None = None, progress: bool = True) -> Results
compare(a: AnyModel, b: AnyModel, *, data: AnyPath | None = None, runs: AnyPath = 'runs', cache: AnyPath | None = None,
    progress: bool = True) -> Difference
evaluate(model: AnyModel | None = None, *, data: AnyPath | None = None, runs: AnyPath = 'runs',
    cache: AnyPath | None = None, progress: bool = True) -> Judgement
export_model(model: AnyModel | None = None, *, format: Literal[onnx, trt, triton] = 'onnx',
    precision: Stored | None = None, batch: tuple[int, int, int] | None = None, data: AnyPath | None = None,
    proof_images: int | None = None, target: Target | None = None, calibration_images: int | None = None,
    max_accuracy_drop: float | None = None, reduced_range: bool = False, example: Example | None = None,
    engine: EngineRequest | None = None, out: AnyPath | None = None, runs: AnyPath = 'runs',
    cache: AnyPath | None = None, progress: bool = True) -> Exported | Repository
open_runner(path: str | Path, *, backend: str | None = None, threads: int | None = None, way: str | None = None,
    unproven: bool = False) -> Runner
plot(*models: AnyModel, by: Axis = 'epochs', runs: AnyPath = 'runs') -> Figure
train(data: AnyPath = 'tiny-imagenet', *, recipe: AnyPath | None = None, init: AnyModel | None = None,
    split: Literal[val, holdout] = 'val', name: str | None = None, seed: int = 0, max_time: float | str | None = None,
    resume: str | Path | Run | None = None, runs: AnyPath = 'runs', cache: AnyPath | None = None, progress: bool = True,
    **fields: object) -> Run
verify(artifact: AnyPath | Exported, *, backend: str | None = None, progress: bool = True) -> Verified
"""
"""Whoever changes a line here changes programs of users."""
NAMES = [line.partition("(")[0] for line in PUBLIC.splitlines() if line[:1].strip()]
TAKE_ACTION = ["benchmark", "compare", "evaluate", "export_model", "open_runner", "plot", "train", "verify"]

CONSUMER = """
from pathlib import Path

import tinyres
from tinyres import Classifier, Run


def work(folder: Path) -> str:
    run: Run = tinyres.train(folder, recipe="demo", max_time="5m", epochs=3, widths=(8, 16))
    share: float = tinyres.evaluate(run).accuracy.top1
    artifact = tinyres.export_model(run, precision="int8", max_accuracy_drop=0.3, batch=(1, 8, 32))
    passed: list[str] = [level.name for level in tinyres.verify(artifact).levels if level.passed]
    served: Path = tinyres.export_model(artifact, format="triton").folder
    alike: float = tinyres.compare(run, artifact).agreement
    rows: list[str] = [row.name for row in tinyres.benchmark(run, batch=[1, 8], quick=True).measured]
    tinyres.plot(run, "runs/other", by="minutes").savefig("curves.png")
    with Classifier(artifact.path) as classify:
        for path, answer in classify.folder(folder):
            print(path, answer, share, passed, served, alike, rows)
        return classify("cat.jpg").label


tinyres.export_model(format="onx")  # type: ignore[call-overload]
tinyres.train("photos", seed="no")  # type: ignore[arg-type]
tinyres.benchmark(3)  # type: ignore[arg-type]
"""


def signature(name: str) -> str:
    """As in the table: annotations as they are written, without the quotes that strings of them have."""
    found = inspect.signature(getattr(tinyres, name))

    def written(annotation: object) -> str:
        return str(annotation).replace('"', "").replace("'", "")

    shown, starred = [], False
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            shown.append("*")
        mark = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        starred = starred or mark == "*"
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        shown.append(f"{mark}{parameter.name}: {written(parameter.annotation)}{default}")
    gives = f" -> {written(found.return_annotation)}" if name in TAKE_ACTION else ""
    return f"{name}({', '.join(shown)}){gives}"


def test_the_public_names_are_these_and_each_loads() -> None:
    assert tinyres.__all__ == NAMES
    assert all(getattr(tinyres, name).__name__ == name for name in NAMES)
    assert set(NAMES) <= set(dir(tinyres))


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_is_that_of_the_table(name: str) -> None:
    table = " ".join(line.strip() for line in PUBLIC.splitlines())
    assert f" {signature(name)} " in f"{table} "


def callables() -> Iterator[tuple[str, Callable[..., object]]]:
    for name in tinyres.__all__:
        public = getattr(tinyres, name)
        yield name, public.__init__ if inspect.isclass(public) else public
        for method, value in vars(public).items() if inspect.isclass(public) else ():
            function = value.fget if isinstance(value, property) else value
            if inspect.isfunction(function) and (method[0] != "_" or method == "__call__"):
                yield f"{name}.{method}", function


@pytest.mark.parametrize(("name", "function"), list(callables()), ids=[name for name, _ in callables()])
def test_whatever_is_called_has_types_and_says_what_it_does(name: str, function: Callable[..., object]) -> None:
    own = inspect.signature(function)
    untyped = [
        parameter.name
        for parameter in own.parameters.values()
        if parameter.annotation is parameter.empty and parameter.name != "self"
    ]
    assert untyped == []
    assert own.return_annotation is not own.empty
    said = inspect.getdoc(getattr(tinyres, name) if "." not in name else function)
    assert said
    assert f"{name}(" not in said.splitlines()[0]  # what a dataclass says of itself where no one did
    if name in TAKE_ACTION:
        assert "Errors: " in said


def test_the_page_names_them_all() -> None:
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in page and f"`{name}(" not in page] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Clasifier'"):
        _ = tinyres.Clasifier


@pytest.mark.parametrize("package", ["tinyres.export", "tinyres.bench", "tinyres.runtime", "tinyres.data"])
def test_the_folders_install_under_one_name(package: str) -> None:
    assert importlib.import_module(package).__doc__


@pytest.mark.slow
def test_a_strict_type_checker_sees_what_programs_get(tmp_path: Path) -> None:
    tree = tmp_path / "tinyres"  # as it installs: mypy cannot follow an editable install
    tree.mkdir()
    for path in (*(REPOSITORY / "tinyres").iterdir(), *(REPOSITORY / name for name in ("export", "bench", "weights"))):
        (tree / path.name).symlink_to(path)
    (tmp_path / "consumer.py").write_text(CONSUMER)
    options = [
        "--strict",
        "--no-site-packages",
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "--no-incremental",
    ]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "consumer.py"],
        cwd=tmp_path,
        env={"PATH": "", "MYPYPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert checked.stdout == "Success: no issues found in 1 source file\n", checked.stdout + checked.stderr
