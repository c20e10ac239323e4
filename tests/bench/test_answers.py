"""Answers that are kept: taken again only where they still hold, and only for what they were answers to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from misbehaving import SHORT, WORKER, contenders
from tiny import TrainedRun

from tinyres.bench import answers
from tinyres.bench.contenders import Contender
from tinyres.bench.lane import Lane, Setting
from tinyres.bench.process import WorkerProcess
from tinyres.bench.run import run_bench
from tinyres.progress import Silent

LABELS = np.arange(8) % 3
SETTING = Setting(2, [0, 1], Path(), Path())


def asked(trained: TrainedRun, contender: Contender, cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a bench asked the contender's process."""
    real, said = WorkerProcess.ask, []

    def ask(self: WorkerProcess, do: str, **arguments: object) -> object:
        said.append(do)
        return real(self, do, **arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, "ask", ask)
        found = run_bench(
            [contender],
            trained.started.dataset,
            run="tiny",
            batches=(1,),
            effort=replace(SHORT, budget_s=0.0),
            images=15,
            command="",
            threads=1,
            cache_dir=cache,
            worker=WORKER,
            progress=Silent(),
        )
    assert found.rows[0].accuracy is not None
    assert found.rows[0].accuracy.images == 15
    return said


def test_answers_are_asked_for_once_and_again_where_they_do_not_hold(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (honest,) = contenders(tmp_path, ("honest",))
    cache = tmp_path / "cache"
    assert "answer" in asked(trained, honest, cache, monkeypatch)
    second = asked(trained, honest, cache, monkeypatch)
    assert second.count("recall") == 2  # of the first process, and of the second round's
    assert "answer" not in second
    (kept,) = (cache / "bench").glob("*.npy")
    np.save(kept, np.load(kept)[:, ::-1])  # another network's, under this one's name
    third = asked(trained, honest, cache, monkeypatch)
    assert third.index("recall") < third.index("answer")
    assert "answer" not in asked(trained, honest, cache, monkeypatch)
    kept.write_bytes(b"damaged")
    assert "answer" in asked(trained, honest, cache, monkeypatch)


def test_answers_belong_to_a_file_a_backend_a_way_and_threads(tmp_path: Path) -> None:
    store = answers.Kept(tmp_path)
    pictures = answers.Pictures(tmp_path / "images.npy", "p", LABELS)
    contender = Contender("pytorch", tmp_path / "x", "0", "reference", "", way="eager")
    lane = Lane(contender, SETTING, opened={"device": "cpu"})
    usual = store.path(lane, pictures)
    others = [
        replace(contender, **change) for change in ({"sha256": "1"}, {"backend": "openvino"}, {"way": "compiled"})
    ]
    paths = {store.path(Lane(one, SETTING, opened={"device": "cpu"}), pictures) for one in others}
    paths.add(store.path(lane, replace(pictures, sha256="q")))
    paths.add(store.path(Lane(contender, SETTING, opened={"device": "cuda:0"}), pictures))
    paths.add(store.path(Lane(contender, replace(SETTING, threads=1), opened={"device": "cpu"}), pictures))
    assert len(paths) == 6
    assert usual not in paths
    assert store.path(lane, pictures) == usual


def test_the_oldest_answers_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "KEPT_BYTES", 1500)
    store = answers.Kept(tmp_path)
    for number in range(4):
        store.put(tmp_path / "bench" / f"{number}.npy", np.zeros((10, 10), dtype=np.float32))
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == ["2.npy", "3.npy"]


def lane_of(logits: np.ndarray, *, number: str = "fp32", limit: float | None = None) -> Lane:
    contender = Contender("onnxruntime-cpu", Path("x.onnx"), "0", "full", "", error_limit=limit)
    return Lane(contender, SETTING, opened={"storage": number, "compute": number}, logits=logits.astype(np.float32))


@pytest.mark.parametrize(
    ("number", "limit", "error", "holds"),
    [
        ("fp32", None, 1e-3, True),
        ("fp32", None, 4e-3, False),
        ("fp16", None, 4e-3, True),
        ("fp16", None, 6e-3, False),
        ("bf16", None, 3e-2, True),
        ("bf16", None, 6e-2, False),
        ("int8", 0.1, 0.09, True),
        ("int8", 0.1, 0.12, False),
        ("int8", None, 0.2, True),
    ],
)
def test_who_answers_further_off_than_its_precision_allows_is_out(
    number: str, limit: float | None, error: float, holds: bool
) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(8, 3))
    noise = rng.normal(size=(8, 3))
    signal = np.sqrt(np.mean((base - base.mean(axis=0)) ** 2))
    noise *= error * signal / np.sqrt(np.mean(noise**2))
    lane, baseline = lane_of(base + noise, number=number, limit=limit), lane_of(base)
    answers.judge(lane, baseline, LABELS)
    assert lane.parity is not None
    assert lane.parity.error == pytest.approx(error, rel=1e-3)
    assert lane.running is holds


def test_gained_and_lost_are_counted_against_the_baseline() -> None:
    base = np.eye(3)[[0, 1, 2, 0]]
    ours = base.copy()
    ours[0], ours[3] = [0, 1.01, 1], [0, 1, 1.01]
    lane, baseline = lane_of(ours, number="int8", limit=9.0), lane_of(base)
    answers.judge(lane, baseline, np.array([0, 1, 2, 2]))
    assert (lane.gained, lane.lost) == (1, 1)
    assert lane.parity is not None
    assert lane.parity.same == 2


def test_a_coarse_baseline_is_as_far_off_as_it_may_be(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(8, 3))
    lane, baseline = lane_of(base * 1.02, number="fp16"), lane_of(base, number="bf16")
    answers.judge(lane, baseline, LABELS)
    assert lane.running
    assert lane.parity is not None
    assert 4.6e-3 < lane.parity.error < lane.parity.limit == 4.1e-2


def test_one_answer_to_every_picture_is_no_parity() -> None:
    alike = np.ones((8, 3))
    lane, baseline = lane_of(alike), lane_of(alike)
    answers.judge(lane, baseline, LABELS)
    assert lane.status == "failed"


def test_a_cache_that_cannot_be_written_costs_no_bench(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (honest,) = contenders(tmp_path, ("honest",))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "bench").write_text("a file where the folder would be")
    assert "answer" in asked(trained, honest, tmp_path / "cache", monkeypatch)
