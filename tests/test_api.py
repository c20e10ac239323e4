"""The commands as functions: they take what the commands take, call what the commands call and say what they say."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import REPOSITORY
from drawn_results import results, row
from tiny import StopAfter, TrainedRun, write_pictures

import tinyres
from tinyres import Run, TinyresError, api
from tinyres.bench import measure as bench_measure
from tinyres.bench import results as bench_results
from tinyres.bench.schedule import Effort
from tinyres.cli import benching, exporting, models, training
from tinyres.errors import BackendUnavailable, InputError, ProofError, UsageError
from tinyres.export.artifact import Exported
from tinyres.export.formats import EngineRequest
from tinyres.export.options import parse_sizes
from tinyres.metrics import ClassResult
from tinyres.runtime.onnxruntime_cpu import OnnxRuntimeCpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = {"recipe": "demo", "epochs": 2, "blocks": (1, 1), "widths": [8, 16], "image_size": 16, "batch_size": 16}
PAIRS: dict[Callable[..., object], Callable[..., object]] = {
    api.train: training.train,
    api.evaluate: models.eval_,
    api.export_model: exporting.export,
    api.verify: models.verify,
    api.compare: models.diff,
    api.benchmark: benching.bench,
    api.plot: training.plot,
}
"""A function and its command."""
RENAMED = {"format_": "format", "folder": "out"}
ONLY_TYPED = {"assignments", "picture"}
"""Options of a command that a function takes another way: fields by name, a figure to save."""
ENGINES = {option for option in inspect.signature(EngineRequest).parameters if option != "workspace_mb"} | {"workspace"}
NOT_OFFERED = {"strict_resume", "deterministic", "tensorboard", "profile", "thorough", "against", "fail_if"}


@contextmanager
def stopping_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ctrl-C that comes after so many steps."""

    @contextmanager
    def interrupted() -> Iterator[StopAfter]:
        yield StopAfter(steps)

    with monkeypatch.context() as patch:
        patch.setattr("tinyres.training.train.catch_interrupt", interrupted)
        yield


@pytest.mark.parametrize("function", PAIRS, ids=lambda function: function.__name__)
def test_a_function_has_its_commands_options_and_their_defaults(function: Callable[..., object]) -> None:
    own = inspect.signature(function).parameters
    command = {
        RENAMED.get(name, name): option.default
        for name, option in inspect.signature(PAIRS[function]).parameters.items()
        if option.annotation is not tinyres.console.Console and name not in ONLY_TYPED | NOT_OFFERED | ENGINES
    }
    assert own.keys() - {"progress", "fields", "engine"} == command.keys()
    for name, default in command.items():
        if own[name].kind is not inspect.Parameter.VAR_POSITIONAL:
            in_words = {"batch": lambda text: text and parse_sizes(text), "runs": str}.get(name, lambda value: value)
            assert own[name].default == in_words(default), name


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys\ndef loaded(*names): print(sorted(set(names) & set(sys.modules)))\n"
        "import tinyres; dir(tinyres); loaded('numpy', 'torch', 'pydantic', 'PIL', 'tinyres.api')\n"
        "from tinyres import train, benchmark; loaded('numpy', 'torch', 'pydantic', 'onnx', 'typer', 'tinyres.bench')\n"
        "from tinyres import Classifier; loaded('torch', 'onnx', 'pydantic', 'matplotlib', 'typer')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["[]"] * 3


def test_a_training_takes_fields_and_says_what_the_command_line_says(
    picture_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tinyres.train(picture_folder, **SMALL, name="loud", seed=3, runs=tmp_path)
    said = capsys.readouterr()
    assert said.out == ""
    assert "run loud: recipe demo, blocks 1-1, widths 8-16, 60 pictures of 3 classes, 2 epochs" in said.err
    assert "15 pictures to judge on" in said.err
    assert "epoch 2/2" in (run.path / "train.log").read_text()
    config = run.config()
    assert config.recipe is not None
    assert (config.seed, config.recipe.widths, config.spec.preprocess.image_size) == (3, (8, 16), 16)
    assert run.state().state == "finished"
    assert re.fullmatch(
        rf"Run\('{re.escape(str(run.path))}': finished, 2 epochs, best epoch \d: [\d.]+% of 15 images\)", repr(run)
    )


def test_ctrl_c_returns_a_run_that_stopped_and_resume_goes_on_with_it(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with stopping_after(5, monkeypatch):
        run = tinyres.train(picture_folder, **SMALL, runs=tmp_path, progress=False)
    assert (run.name, run.state().state, run.state().message) == ("demo-1", "stopped", "interrupted")
    assert repr(run).startswith(f"Run({str(run.path)!r}: stopped (interrupted), 1 epoch, ")
    again = tinyres.train(resume=run, progress=False)
    assert (again, again.state().state) == (run, "finished")
    shown = capsys.readouterr()
    assert (shown.out, {line.partition(":")[0] for line in shown.err.splitlines()}) == ("", {"warning"})
    with pytest.raises(UsageError, match="a resumed run keeps its recipe"):
        tinyres.train(resume=run, recipe="nano", progress=False)


def test_what_is_interrupted_before_its_first_step_leaves_no_run(
    picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyres.training.launch.warn_of_data", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tinyres.train(picture_folder, **SMALL, runs=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("time", [0.001, "0.001s"])
def test_time_is_seconds_or_a_text(time: float | str, picture_folder: Path, tmp_path: Path) -> None:
    run = tinyres.train(picture_folder, **SMALL, max_time=time, runs=tmp_path, progress=False)
    assert run.state().message == "time"
    assert [epoch.step for epoch in run.history()] == [1]


def test_a_model_is_named_in_every_way_the_command_line_knows_and_by_what_functions_return(
    trained: TrainedRun, exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained.started.run
    for model in (None, "tiny", run.path, str(run.best), run, exported):
        judged = tinyres.evaluate(model, runs=trained.runs)
        assert judged.accuracy == tinyres.evaluate(run, progress=False).accuracy
    said = [line for line in capsys.readouterr().err.splitlines() if "tiny" in line]
    assert said == [
        "the newest run: tiny",
        *["model: tiny (best.safetensors)"] * 4,
        "model: tiny (fp32.onnx)",
    ]


def test_an_export_is_proven_verified_and_compared(
    trained: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"batch": (1, 2, 3), "out": tmp_path, "progress": False}
    artifact = tinyres.export_model(trained.started.run, **options)
    assert artifact.path == tmp_path / "fp32.onnx"
    assert (artifact.certificate.batches, artifact.certificate.grade) == ((1, 2, 3), "full")
    assert repr(artifact) == f"Exported({str(artifact.path)!r}: proven (full))"
    verified = tinyres.verify(artifact, progress=False)
    assert {level.name for level in verified.levels if level.passed} >= {"numeric", "decision", "recorded"}
    found = tinyres.compare(trained.started.run, artifact, progress=False)
    assert (found.images, found.agreement, found.source) == (15, 1, "folders")
    with_example = tinyres.export_model(trained.started.run, example="python", **options)
    assert with_example.example == tmp_path / "fp32.onnx.py"
    assert capsys.readouterr() == ("", "")


def test_a_file_that_answers_otherwise_raises_and_is_not_there(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OnnxRuntimeCpu.infer
    monkeypatch.setattr(OnnxRuntimeCpu, "infer", lambda self, images: real(self, images) * np.float32(1.01))
    with pytest.raises(ProofError, match=r"fp32.onnx failed the numeric level"):
        tinyres.export_model(trained.started.run, out=tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["fp32.onnx.rejected"]


def test_options_of_int8_reach_the_calibration(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("tinyres.export.formats.export_model", lambda _, request, **__: asked.append(request))
    options = {"precision": "int8", "out": tmp_path, "progress": False}
    tinyres.export_model(trained.best, max_accuracy_drop=0.5, calibration_images=64, reduced_range=True, **options)
    tinyres.export_model(trained.best, format="trt", calibration_images=64, **options)
    tinyres.export_model(trained.best, **options)
    assert [request.file_name for request in asked] == ["int8-cpu.onnx", "int8-tensorrt.onnx", "int8-cpu.onnx"]
    first, second, third = (request.int8 for request in asked)
    assert (first.most_drop, first.images, first.reduced, second.images, third) == (0.005, 64, True, 64, None)


@pytest.mark.usefixtures("brief")
def test_a_bench_writes_its_reports_and_returns_what_is_in_them(
    trained: TrainedRun, exported: Exported, tmp_path: Path
) -> None:
    options = {"backends": ["onnxruntime-cpu"], "batch": 1, "quick": True, "threads": 1}
    data = trained.started.config.data
    found = tinyres.benchmark(exported, **options, images=10, data=data, out=tmp_path, progress=False)
    assert found == bench_results.load(tmp_path / "results.json")
    assert found.command == (
        "tinyres.benchmark('tiny', backends=('onnxruntime-cpu',), batch=(1,), quick=True, threads=1, images=10,"
        f" data='{Path(data).name}')"
    )
    (only,) = found.rows
    assert only.accuracy is not None
    assert only.accuracy.images == 10
    assert repr(found).startswith("Results('tiny': 1 of 1 contender measured, batch 1, in ")


def test_a_plot_is_a_figure_that_notebooks_show_and_nothing_is_written(trained: TrainedRun) -> None:
    before = sorted(path.name for path in trained.started.run.path.iterdir())
    figure = tinyres.plot(trained.started.run, "tiny", by="minutes", runs=trained.runs)
    losses, accuracies = figure.axes
    assert len(losses.lines) == len(accuracies.lines) == 4  # two runs, train and val
    assert losses.get_xlabel() == "minutes of training"
    assert figure._repr_png_().startswith(b"\x89PNG\r\n")
    assert sorted(path.name for path in trained.started.run.path.iterdir()) == before


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tinyres.export_model(format="onx"), "format='onx' is none of the choices"),
        (lambda: tinyres.export_model(precision="fp8"), "precision='fp8' is none of the choices"),
        (lambda: tinyres.export_model(example="rust"), "example='rust' is none of the choices"),
        (lambda: tinyres.export_model(target="gpu"), "target='gpu' is none of the choices"),
        (lambda: tinyres.export_model(engine=EngineRequest("rt")), "engine.runtime='rt' is none of the choices"),
        (
            lambda: tinyres.export_model(engine=EngineRequest(optimization_level=6)),
            "engine.optimization_level=6 is none of the choices",
        ),
        (
            lambda: tinyres.export_model(engine=EngineRequest(workspace_mb=0)),
            "engine.workspace_mb=0 is too few or too low; valid: 1 or more",
        ),
        (lambda: tinyres.plot(by="minute"), "by='minute' is none of the choices"),
        (lambda: tinyres.export_model(proof_images=0), "proof_images=0 is too few or too low; valid: 1 or more"),
        (lambda: tinyres.benchmark(images=1), "images=1 is too few or too low; valid: 2 or more"),
        (lambda: tinyres.benchmark(threads=0), "threads=0 is too few or too low; valid: 1 or more"),
        (lambda: tinyres.train("shapes", seed=-1), "seed=-1 is too few or too low; valid: 0 or more"),
        (lambda: tinyres.export_model(max_accuracy_drop=1), "precision=None has no ranges to calibrate"),
        (lambda: tinyres.export_model(batch=(1, 2)), "expected least:usual:most, rising"),
        (lambda: tinyres.benchmark(batch=0), "batches are whole numbers from 1"),
        (lambda: tinyres.train("shapes", max_time="soon"), "'soon' is no length of time"),
        (lambda: tinyres.train("shapes", max_time=-5), "max_time=-5 is no length of time"),
        (lambda: tinyres.train("shapes", recipe="demo", lr=float("nan")), "lr cannot be nan; valid: above 0"),
        (lambda: tinyres.train("shapes", recipe="demo", epoch=3), "recipe demo has no field 'epoch'"),
        (lambda: tinyres.train("shapes", split="test"), "there is no split 'test'"),
        (tinyres.evaluate, "there is no finished run in "),
        (lambda: tinyres.evaluate("nona"), "there is no model 'nona'"),
    ],
)
def test_what_does_not_fit_is_a_usage_error_before_anything_is_done(
    call: Callable[[], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        call()
    assert caught.value.hint or "valid: " in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_and_the_systems_refusals_read_as_on_the_command_line(tmp_path: Path) -> None:
    with (
        pytest.raises(BackendUnavailable, match="needs the package torch, which is not installed"),
        api._errors_as_ours(),
    ):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    with pytest.raises(TinyresError) as caught:
        tinyres.evaluate("a" * 5000, runs=tmp_path)
    assert caught.value.exit_code == InputError.exit_code
    with pytest.raises(ZeroDivisionError), api._errors_as_ours():  # a defect is not dressed up
        _ = 1 / 0


def test_a_run_that_is_none_is_shown_by_its_path(tmp_path: Path) -> None:
    assert repr(Run(tmp_path)) == f"Run({str(tmp_path)!r})"
    (tmp_path / "state.json").write_text("{")
    assert repr(Run(tmp_path)) == f"Run({str(tmp_path)!r})"


def test_what_notebooks_show_is_short_and_escapes_names(trained: TrainedRun, exported: Exported) -> None:
    judged = tinyres.evaluate(trained.started.run, progress=False)
    accuracy = replace(judged.accuracy, images=1000, correct=591, low=0.5602, high=0.6211)
    odd = replace(
        judged, accuracy=accuracy, loss=1.5, calibration_error=0.02, classes=(ClassResult("b", "<b>&", 9, 3, "<i>"),)
    )
    assert repr(odd) == (
        "Judgement(59.10% top-1 (56.02% to 62.11%) of 1,000 val images, loss 1.5000, calibration error 2.00%)"
    )
    assert "33.3% of 9     &lt;b&gt;&amp;, often taken for &lt;i&gt;" in odd._repr_html_()
    assert "<b>" not in odd._repr_html_()
    level = replace(exported.certificate.levels[0], detail="<script>")
    spoiled = replace(exported, certificate=replace(exported.certificate, levels=(level,), grade="unproven"))
    assert "not proven on a device" in repr(spoiled)
    assert "&lt;script&gt;" in spoiled._repr_html_()
    assert "<script>" not in spoiled._repr_html_()


def test_results_are_shown_without_their_samples() -> None:
    found = results(row("pytorch eager", p50_ms=2), row("onnxruntime-cpu <b>", p50_ms=1))
    assert len(repr(found)) < 200
    assert len(repr(found.rows)) < 300
    measurement = found.rows[0].measurements[0]
    assert len(repr(measurement)) < 700
    assert str(measurement.blocks[0].samples_ns[0]) not in repr(measurement)
    assert r"onnxruntime-cpu \<b\>" in found._repr_markdown_()


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_programs_of_the_page_run_one_after_the_other(
    brief: Effort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(bench_measure.EFFORTS, "quick", replace(brief, rounds=1))
    write_pictures(tmp_path / "photos" / "train", classes=3, each=20)
    write_pictures(tmp_path / "photos" / "val", classes=3, each=5, split="val")
    for number, program in enumerate(blocks(REPOSITORY / "docs" / "python.md")):
        exec(compile(program, f"python.md, {number}", "exec"), {"__name__": "__main__"})  # noqa: S102 - its own programs
    printed = capsys.readouterr().out
    assert "Exported('runs/mine/export/fp32.onnx': proven (full))" in printed
    assert (tmp_path / "curves.png").is_file()
    assert (tmp_path / "runs" / "mine" / "bench" / "report.html").is_file()
