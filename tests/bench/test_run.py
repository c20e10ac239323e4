from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import REPOSITORY
from tiny import TrainedRun

from tinyres import records
from tinyres.bench import answers, worker
from tinyres.bench.contenders import Contender, find_contenders
from tinyres.bench.lane import absent_row
from tinyres.bench.reports.terminal import terminal
from tinyres.bench.reports.write import write_reports
from tinyres.bench.results import Results
from tinyres.bench.run import run_bench
from tinyres.bench.schedule import Effort
from tinyres.bench.schema import schema
from tinyres.checkpoint import load_weights, save_tensors
from tinyres.errors import UsageError
from tinyres.export.artifact import Exported
from tinyres.progress import Silent
from tinyres.runs import find_model
from tinyres.runtime.backends import BACKENDS
from tinyres.runtime.fake import FakeBackend
from tinyres.runtime.runner import Runner

SHORT = Effort(
    seconds=0.2,
    runs=12,
    limit_s=2.0,
    limit_runs=4,
    rounds=2,
    side_s=0.02,
    side_batch_s=0.01,
    side_rounds=1,
)


@pytest.fixture(scope="module")
def results(exported: Exported, trained: TrainedRun) -> Results:
    contenders = find_contenders(find_model("tiny", trained.runs), None, all_ways=False)
    broken = Contender("onnxruntime-cpu", exported.path.with_name("gone.onnx"), "0", "full", "")
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
    pytorch, last, onnx, openvino = results.measured
    assert [row.name for row in (last, openvino)] == ["pytorch channels_last", "openvino fp32"]
    assert (pytorch.name, pytorch.proof) == ("pytorch eager", "reference")
    assert (onnx.name, onnx.proof) == ("onnxruntime-cpu fp32", "full")
    for row in results.measured:
        assert row.accuracy is not None
        assert row.accuracy.images == 15
        for batch in (1, 4):
            measured = row.at(batch)
            assert measured is not None
            assert list(measured.kept) == [0, 1]
            assert len(measured.samples_s) >= 12
            assert min(measured.samples_s) > 0
        assert len(row.cold) == 2  # a process a round
        assert row.parity is not None
        assert (row.parity.same, row.parity.images) == (15, 15)
        assert row.parity.error < 1e-5
        assert (row.gained, row.lost) == (0, 0)
    assert pytorch.accuracy == onnx.accuracy == openvino.accuracy
    assert "CPUExecutionProvider" in onnx.evidence
    assert "CPU: " in openvino.evidence
    assert "heavy operations in f32" in openvino.evidence
    assert (results.threads, len(results.affinity), results.baseline) == (1, 1, "pytorch eager")


def test_throughput_is_measured_over_more_batch_sizes_and_answers_under_load(results: Results) -> None:
    for row in results.measured:
        sizes = [measured.batch for measured in row.measurements]
        assert sizes == sorted(sizes)
        assert {1, 2, 4, 8} <= set(sizes)
        assert [load.clients for load in row.loads] == [1, 2, 4, 8]
        assert all(len(load.samples_s) >= load.clients and load.per_second > 0 for load in row.loads)


def test_a_contender_that_cannot_open_costs_only_its_row(results: Results) -> None:
    failed = next(row for row in results.rows if row.status == "failed")
    assert "is not an ONNX model" in failed.reason
    assert "gone" not in "".join(line for line in terminal(results).splitlines() if " ms" in line)
    assert "onnxruntime-cpu gone: failed" in terminal(results)


def test_results_survive_writing_and_reading_and_name_no_path(results: Results, tmp_path: Path) -> None:
    write_reports(tmp_path, results)
    assert records.load(Results, tmp_path / "results.json") == results
    for path in tmp_path.iterdir():
        assert str(Path.home()) not in path.read_text()


def test_results_fit_the_published_schema_and_nothing_else_does(results: Results) -> None:
    published = json.loads((REPOSITORY / "docs" / "bench-schema.json").read_text())
    assert published == schema(), "python -m tinyres.bench.schema > docs/bench-schema.json"
    validator = jsonschema.Draft202012Validator(published)
    written = json.loads(records.to_json(results))
    validator.validate(written)
    for spoil in ({"schema": 1}, {"threads": "two"}, {"more": 0}):
        assert not validator.is_valid({**written, **spoil})
    del written["rows"][0]["measurements"][0]["blocks"][0]["samples_ns"]
    assert not validator.is_valid(written)
    described = published["$defs"]["Measurement"]["properties"]["steady"]["description"]
    assert described.startswith("The warm-up ended because two windows agreed")


def test_an_artifact_without_its_proof_takes_no_part(exported: Exported, trained: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(trained.started.run.path, tmp_path / "tiny")
    artifact = tmp_path / "tiny" / "export" / "fp32.onnx"
    artifact.write_bytes(artifact.read_bytes() + b"\0")
    (contender,) = find_contenders(find_model("tiny", tmp_path), ["onnxruntime-cpu"])
    assert contender.absent.startswith("not proven: the certificate")
    assert absent_row(contender).status == "failed"  # it is here, and not to be believed


def test_an_artifact_of_an_earlier_checkpoint_takes_no_part(
    exported: Exported, trained: TrainedRun, tmp_path: Path
) -> None:
    shutil.copytree(trained.started.run.path, tmp_path / "tiny")
    best = tmp_path / "tiny" / "best.safetensors"
    known = load_weights(best)
    save_tensors(
        best, {name: value * 1 for name, value in known.tensors.items()}, known.spec, replace(known.origin, epoch=9)
    )
    (contender,) = find_contenders(find_model("tiny", tmp_path), ["onnxruntime-cpu"])
    assert contender.absent == "exported from an earlier checkpoint (tinyres export tiny)"
    assert absent_row(contender).status == "failed"


def test_a_slow_contender_still_judges_every_class(trained: TrainedRun, tmp_path: Path) -> None:
    chosen = answers.choose_pictures(trained.started.dataset, tmp_path, answers.IMAGES)
    assert set(chosen.labels[:8].tolist()) == {0, 1, 2}


def test_accuracy_is_over_as_many_pictures_as_were_asked_for_and_else_as_there_is_time(
    exported: Exported, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(answers, "COUNTS", (10, 5))
    contenders = find_contenders(find_model("tiny", trained.runs), ["onnxruntime-cpu"])
    for asked, budget_s, wanted in ((None, 0.0, 5), (None, 1e9, 10), (12, 0.0, 12), (10_000, 0.0, 15)):
        results = run_bench(
            contenders,
            trained.started.dataset,
            run="tiny",
            batches=(1,),
            effort=replace(SHORT, budget_s=budget_s),
            images=asked,
            command="",
            cache_dir=tmp_path / str(wanted),
            progress=Silent(),
        )
        (row,) = results.rows
        assert row.accuracy is not None
        assert row.accuracy.images == wanted


def test_a_backend_without_a_file_is_listed_with_the_reason(trained: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(trained.started.run.path, tmp_path / "tiny", ignore=shutil.ignore_patterns("export"))
    contenders = find_contenders(find_model("tiny", tmp_path), None)
    assert {contender.name: contender.absent for contender in contenders} == {
        **dict.fromkeys([f"pytorch {way}" for way in BACKENDS["pytorch"].ways], ""),
        **dict.fromkeys(
            ("onnxruntime-cpu", "onnxruntime-cuda", "onnxruntime-tensorrt", "openvino"),
            "nothing for it: no .onnx file (tinyres export tiny)",
        ),
        **dict.fromkeys(
            ("tensorrt", "tensorrt-rtx"), "nothing for it: no .engine file (tinyres export tiny --format trt)"
        ),
    }
    quick = find_contenders(find_model("tiny", tmp_path), ["pytorch"], all_ways=False)
    assert [contender.absent for contender in quick] == ["", "", *["not with --quick"] * 4]


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
    contender.answer(count=15, batch=15, out=str(tmp_path / "answers.npy"), share=1e-2)
    with pytest.raises(worker.WrongAnswers, match="differ from those of the accuracy run"):
        contender.block(batch=1, seconds=0.0, least=5, most=5)


def test_a_warm_up_ends_when_two_windows_agree_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = iter([[milliseconds * 1_000_000] * 5 for milliseconds in (9, 6, 3, 3, 3)])
    contender = worker.Worker()
    monkeypatch.setattr(contender, "_time", lambda *_, **__: next(windows))  # a loaded machine agrees with nothing
    assert contender.warm(batch=1, window_s=0.0, least=5) == {"runs": 20, "median_ns": 3_000_000, "steady": True}


def test_a_warm_up_that_never_settles_ends_and_says_so(trained: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "WARM_LIMIT_S", 0.0)
    contender = worker.Worker()
    contender._runner = Runner(
        FakeBackend(trained.started.config.spec, lambda pixels: np.zeros((len(pixels), 3), dtype=np.float32))
    )
    contender._images = np.asarray(trained.started.dataset.val.images)
    assert contender.warm(batch=1, window_s=0.0, least=1)["steady"] is False
