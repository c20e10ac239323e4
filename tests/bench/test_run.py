from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TrainedRun

from tinyres import records
from tinyres.bench import run as bench_run
from tinyres.bench import worker
from tinyres.bench.contenders import Contender, find_contenders
from tinyres.bench.report import markdown, terminal, write_reports
from tinyres.bench.results import Results
from tinyres.bench.run import run_bench
from tinyres.bench.schedule import Effort
from tinyres.checkpoint import load_weights, save_tensors
from tinyres.errors import UsageError
from tinyres.export.artifact import Exported
from tinyres.progress import Silent
from tinyres.runs import find_model
from tinyres.runtime.fake import FakeBackend
from tinyres.runtime.runner import Precision, Runner

SHORT = Effort(seconds=0.2, runs=12, limit_s=2.0, limit_runs=4, rounds=2)


@pytest.fixture(scope="module")
def results(exported: Exported, trained: TrainedRun) -> Results:
    contenders = find_contenders(find_model("tiny", trained.runs), None)
    broken = Contender("onnxruntime-cpu", exported.path.with_name("gone.onnx"), "", "full", "")
    broken.path.write_bytes(b"no model")
    try:
        return run_bench(
            [*contenders, broken],
            trained.started.dataset,
            run="tiny",
            batches=(1, 4),
            effort=SHORT,
            command="tinyres bench tiny",
            threads=1,
            progress=Silent(),
        )
    finally:
        broken.path.unlink()


def test_every_contender_has_samples_accuracy_and_its_proof_in_one_row(results: Results) -> None:
    pytorch, onnx, openvino = (row for row in results.rows if row.status == "ok")
    assert openvino.name == "openvino fp32"
    assert (pytorch.name, pytorch.proof) == ("pytorch", "reference")
    assert (onnx.name, onnx.proof) == ("onnxruntime-cpu fp32", "full")
    for row in (pytorch, onnx, openvino):
        assert row.status == "ok"
        assert row.accuracy is not None
        assert row.accuracy.images == 15
        assert [measured.batch for measured in row.measurements] == [1, 4]
        for measured in row.measurements:
            assert len(measured.blocks_ns) == 2
            assert len(measured.samples_s) >= 12
            assert min(measured.samples_s) > 0
    assert pytorch.accuracy == onnx.accuracy == openvino.accuracy
    assert results.threads == 1


def test_a_contender_that_cannot_open_costs_only_its_row(results: Results) -> None:
    failed = next(row for row in results.rows if row.status == "failed")
    assert "is not an ONNX model" in failed.reason
    assert "gone" not in "".join(line for line in terminal(results).splitlines() if " ms" in line)
    assert "onnxruntime-cpu gone: failed" in markdown(results)


def test_results_survive_writing_and_reading_and_name_no_path(results: Results, tmp_path: Path) -> None:
    write_reports(tmp_path, results)
    assert records.load(Results, tmp_path / "results.json") == results
    for path in tmp_path.iterdir():
        assert str(Path.home()) not in path.read_text()
    table = (tmp_path / "results.md").read_text()
    assert "| pytorch |" in table
    assert "host array in, host logits out" in table


def test_the_terminal_table_fits_eighty_columns(results: Results) -> None:
    named = replace(results.rows[0], name="onnxruntime-cpu int8-tensorrt", proof="sampled")
    lines = terminal(replace(results, rows=[*results.rows, named])).splitlines()
    assert max(len(line) for line in lines if " ms" in line and ":" not in line) <= 80


def test_without_the_checkpoint_the_others_are_compared_with_float32(results: Results) -> None:
    others = replace(results, rows=[row for row in results.rows if row.backend != "pytorch"])
    halves = replace(others.rows[0], name="half", precision=Precision("fp16", "fp32"))
    shown = terminal(replace(others, rows=[halves, *others.rows]))
    lines = [line.split() for line in shown.splitlines()]
    assert next(line for line in lines if line[:1] == ["contender"])[4] == "ratio"
    assert "The ratio is to onnxruntime-cpu fp32; n.s.: not significant." in shown
    assert next(line for line in lines if line[:2] == ["onnxruntime-cpu", "fp32"])[7] == "1"


def test_a_toy_says_so(results: Results) -> None:
    assert "a toy" in markdown(replace(results, data_kind="shapes"))
    assert "a toy" not in markdown(results)


def test_an_artifact_without_its_proof_takes_no_part(exported: Exported, trained: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(trained.started.run.path, tmp_path / "tiny")
    artifact = tmp_path / "tiny" / "export" / "fp32.onnx"
    artifact.write_bytes(artifact.read_bytes() + b"\0")
    contenders = find_contenders(find_model("tiny", tmp_path), ["onnxruntime-cpu"])
    assert next(contender.absent for contender in contenders).startswith("not proven: the certificate")


def test_an_artifact_of_an_earlier_checkpoint_takes_no_part(
    exported: Exported, trained: TrainedRun, tmp_path: Path
) -> None:
    shutil.copytree(trained.started.run.path, tmp_path / "tiny")
    best = tmp_path / "tiny" / "best.safetensors"
    known = load_weights(best)
    save_tensors(
        best, {name: value * 1 for name, value in known.tensors.items()}, known.spec, replace(known.origin, epoch=9)
    )
    contenders = find_contenders(find_model("tiny", tmp_path), ["onnxruntime-cpu"])
    assert (
        next(contender.absent for contender in contenders)
        == "exported from an earlier checkpoint (tinyres export tiny)"
    )


def test_a_slow_contender_still_judges_every_class(trained: TrainedRun, tmp_path: Path) -> None:
    _, labels = bench_run._pictures(trained.started.dataset, tmp_path, bench_run.IMAGES)
    assert set(labels[:8].tolist()) == {0, 1, 2}


def test_accuracy_is_over_as_many_pictures_as_were_asked_for_and_else_as_there_is_time(
    exported: Exported, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "ACCURACY_S", 0.0)
    monkeypatch.setattr(bench_run, "LEAST_IMAGES", 5)
    contenders = find_contenders(find_model("tiny", trained.runs), ["onnxruntime-cpu"])
    for asked, wanted in ((None, 5), (12, 12), (10_000, 15)):
        results = run_bench(
            contenders,
            trained.started.dataset,
            run="tiny",
            batches=(1,),
            effort=SHORT,
            images=asked,
            command="",
            progress=Silent(),
        )
        (row,) = results.rows
        assert row.accuracy is not None
        assert row.accuracy.images == wanted


def test_a_backend_without_a_file_is_listed_with_the_reason(trained: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(trained.started.run.path, tmp_path / "tiny", ignore=shutil.ignore_patterns("export"))
    contenders = find_contenders(find_model("tiny", tmp_path), None)
    assert {contender.backend: contender.absent for contender in contenders} == {
        "pytorch": "",
        **dict.fromkeys(
            ("onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-tensorrt", "openvino"),
            "nothing exported for it (no .onnx file)",
        ),
        **dict.fromkeys(("tensorrt", "tensorrt-rtx"), "nothing exported for it (no .engine file)"),
    }


def test_an_unknown_backend_is_refused(trained: TrainedRun) -> None:
    with pytest.raises(UsageError, match="no backend 'tensorflow'"):
        find_contenders(find_model("tiny", trained.runs), ["tensorflow"])


def test_a_contender_that_answers_otherwise_when_timed_is_found_out(trained: TrainedRun, tmp_path: Path) -> None:
    images = np.asarray(trained.started.dataset.val.images)
    np.save(tmp_path / "images.npy", images)
    calls: list[int] = []

    def answer(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        logits = pixels.reshape(len(pixels), -1)[:, :3].astype(np.float32)
        return logits if len(calls) < 3 else logits + 50

    contender = worker.Worker()
    contender._runner = Runner(FakeBackend(trained.started.config.spec, answer))
    contender._images = images
    contender.answer(count=15, batch=15, out=str(tmp_path / "answers.npy"))
    with pytest.raises(UsageError, match="differ from those of the accuracy run"):
        contender.block(batch=1, seconds=0.0, least=5, most=5)
