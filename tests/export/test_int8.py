"""int8 from a checkpoint and pictures: the choices it makes, the files it writes, and the proof that judges them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import Heard, TrainedRun, outcome
from typer.testing import CliRunner

from tinyres import environment
from tinyres.bench.contenders import find_contenders
from tinyres.bench.reports.tables import notes
from tinyres.bench.run import run_bench
from tinyres.bench.schedule import QUICK
from tinyres.checkpoint import Checkpoint, load_weights, save_tensors
from tinyres.data.dataset import Split
from tinyres.errors import BackendUnavailable, CheckpointError, DataError, ProofError, UsageError
from tinyres.export import int8, parity, pipeline
from tinyres.export.artifact import Exported
from tinyres.export.certificate import Calibration, Certificate, LayerError, Level, MethodTried, read_certificate
from tinyres.export.int8 import calibrated, choose_method, choose_pictures, keep_ends, ladder
from tinyres.export.limits import INT8, INT8_HEADROOM
from tinyres.export.onnx import describe, float_model
from tinyres.export.options import Int8Options
from tinyres.export.pipeline import export_onnx, prove_again, proven_onnx
from tinyres.export.ranges import judge_clipping
from tinyres.export.triton import export_triton
from tinyres.export.verify import verify
from tinyres.progress import Silent
from tinyres.runs import find_model
from tinyres.runtime.backends import open_runner
from tinyres.runtime.metadata import Target

TARGETS: tuple[Target, ...] = ("cpu", "cuda", "tensorrt")


def export_int8(drawn: TrainedRun, folder: Path, *, proof_images: int | None = None, **asked: object) -> Exported:
    options = Int8Options(**asked)  # type: ignore[arg-type]
    return export_onnx(
        drawn.best,
        folder / f"int8-{options.target}.onnx",
        precision="int8",
        int8=options,
        dataset=drawn.started.dataset,
        batches=(1, 4, 9),
        proof_images=proof_images,
        progress=Silent(),
    )


@pytest.fixture(scope="module")
def for_cpu(drawn: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_int8(drawn, tmp_path_factory.mktemp("export"))


# Pictures


def test_no_picture_is_both_measured_and_held_out_and_they_are_always_the_same(drawn: TrainedRun) -> None:
    dataset, checkpoint = drawn.started.dataset, load_weights(drawn.best)
    pictures = choose_pictures(dataset, checkpoint, 100)
    assert (len(pictures.measured), len(pictures.held_out)) == (100, 200)
    measured, held = ({picture.tobytes() for picture in part} for part in (pictures.measured, pictures.held_out))
    assert not measured & held
    again = choose_pictures(dataset, checkpoint, 100)
    np.testing.assert_array_equal(again.measured, pictures.measured)
    assert len(choose_pictures(dataset, checkpoint, 10_000).measured) == 150


def with_training_pictures(drawn: TrainedRun, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> TrainedRun:
    dataset = drawn.started.dataset
    train_split = replace(dataset.train, images=change(np.array(dataset.train.images)))
    other = replace(dataset, train=train_split, manifest=replace(dataset.manifest, fingerprint="of other data"))
    return replace(drawn, started=replace(drawn.started, dataset=other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.zeros_like, "150 training pictures hold 1 different ones"),
        (lambda images: np.repeat(images[:1], len(images), 0), "150 training pictures hold 1 different ones"),
        (lambda images: images // 50 + 200, "are not like those of the training"),
    ],
)
def test_pictures_that_set_no_ranges_are_refused_before_anything_is_written(
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], message: str, drawn: TrainedRun, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        export_int8(with_training_pictures(drawn, change), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_data_that_a_network_learned_from_is_never_foreign(drawn: TrainedRun) -> None:
    """As after --init, which takes over the mean and std of other pictures."""
    known, dataset = load_weights(drawn.best), drawn.started.dataset
    preprocess = replace(known.spec.preprocess, mean=(0.9, 0.9, 0.9), std=(0.1, 0.1, 0.1))
    tuned = replace(known, spec=replace(known.spec, preprocess=preprocess))
    assert len(choose_pictures(dataset, tuned, 100).measured) == 100
    imported = replace(tuned, origin=replace(tuned.origin, data_kind="unknown", data_fingerprint=""))
    assert len(choose_pictures(dataset, imported, 100).measured) == 100


def test_a_network_that_answers_alike_for_every_picture_is_refused(drawn: TrainedRun, tmp_path: Path) -> None:
    known = load_weights(drawn.best)
    tensors = dict(known.tensors) | {"fc.weight": known.tensors["fc.weight"] * 0}
    save_tensors(tmp_path / "dull.safetensors", tensors, known.spec, known.origin)
    with pytest.raises(CheckpointError, match="answers alike for every picture"):
        export_onnx(
            tmp_path / "dull.safetensors",
            tmp_path / "x.onnx",
            precision="int8",
            dataset=drawn.started.dataset,
            progress=Silent(),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["dull.safetensors"]


def test_too_few_pictures_and_none_are_refused(trained: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="60 training pictures are too few for int8: it takes 64"):
        export_int8(trained, tmp_path)
    with pytest.raises(DataError, match="the run's data is not at hand"):
        export_onnx(trained.best, tmp_path / "x.onnx", precision="int8", dataset=None, progress=Silent())
    with pytest.raises(UsageError, match="--calibration-images 5: valid: 32 or more"):
        Int8Options(images=5)
    with pytest.raises(UsageError, match="--max-accuracy-drop 150: valid: points from 0 to less than 100"):
        Int8Options(most_drop=1.5)
    with pytest.raises(UsageError, match="--reduced-range is for processors"):
        Int8Options(target="tensorrt", reduced=True)
    assert not list(tmp_path.iterdir())


# Choices


def test_the_method_with_the_least_error_is_chosen_among_those_not_provably_worse() -> None:
    count = 1000
    best = np.ones(count, dtype=bool)
    lucky = best.copy()
    lucky[:2] = False
    worse = best.copy()
    worse[:40] = False
    right = [best, lucky, worse]
    tried = [
        MethodTried(str(index), False, error, 1.0, float(one.mean()), 0.0)
        for index, (error, one) in enumerate(zip((0.05, 0.04, 0.01), right, strict=True))
    ]
    assert choose_method(tried, right) == 1  # two pictures are luck, forty are not
    clipping = [tried[0], replace(tried[1], clipped=0.01), tried[2]]
    assert choose_method(clipping, right) == 0  # the proof would refuse it
    assert choose_method([replace(one, clipped=0.01) for one in tried], right) == 1


def layers(*values: tuple[float, float]) -> tuple[LayerError, ...]:
    return tuple(LayerError(str(index), error, work, kept=False) for index, (error, work) in enumerate(values))


def test_the_ends_are_kept_where_their_share_of_the_error_is_far_above_that_of_the_work() -> None:
    assert keep_ends(layers((0.1, 0.01), (0.1, 0.98), (0.1, 0.01))) == ["0", "2"]
    assert keep_ends(layers((0.1, 0.3), (0.1, 0.4), (0.1, 0.3))) == []
    assert keep_ends(layers((0.0, 0.3), (0.0, 0.4), (0.0, 0.3))) == []
    assert keep_ends(layers((0.01, 0.01), (0.9, 0.01), (0.01, 0.98))) == []  # only the ends


def test_the_ladder_gives_back_first_what_gains_most_for_its_work_and_ends_at_half_of_it() -> None:
    table = layers((0.1, 0.2), (0.3, 0.2), (0.1, 0.01), (0.2, 0.59))
    assert list(ladder(table)) == [[], ["2"], ["2", "1"]]  # then 3, with most of the work


@pytest.mark.parametrize(
    ("machine", "sets", "target", "wanted"),
    [
        ("x86_64", ("avx2",), "cpu", True),
        ("AMD64", ("avx2", "avx512f"), "cpu", True),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), "cpu", False),
        ("x86_64", ("avx2", "avx_vnni"), "cpu", False),
        ("aarch64", (), "cpu", False),
        ("x86_64", ("avx2",), "tensorrt", False),
    ],
)
def test_seven_bits_are_tried_where_sixteen_could_overflow(
    machine: str, sets: tuple[str, ...], target: Target, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = replace(environment.capture(), machine=machine, instruction_sets=sets)
    monkeypatch.setattr(environment, "capture", lambda: here)
    assert int8.overflows(Int8Options(target=target)) is wanted


def test_on_such_a_processor_answers_decide_between_seven_and_eight_bits(
    drawn: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflows_here = int8.overflows(Int8Options())
    monkeypatch.setattr(int8, "overflows", lambda asked: True)
    checkpoint = load_weights(drawn.best)

    def record() -> object:
        pictures = choose_pictures(drawn.started.dataset, checkpoint, 512)
        _, found = next(calibrated(checkpoint, pictures, Int8Options(), progress=Silent()))
        assert len(found.tried) == 2 * len(int8.METHODS)
        return found.reduced

    if not overflows_here:
        assert record() is False  # eight bits are nearer
    real = int8.open_content

    def saturating(content: bytes, metadata: object, place: str) -> object:
        backend = real(content, metadata, place)  # type: ignore[arg-type]
        largest = max(abs(value).max() for value in stored_weights(content))
        if largest <= 63:
            return backend

        class Clipped:
            def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
                return -backend.infer(images)

        return Clipped()

    monkeypatch.setattr(int8, "open_content", saturating)
    assert record() is True


def stored_weights(content: bytes) -> list[NDArray[np.generic]]:
    import onnx

    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load_model_from_string(content).graph.initializer]
    return [array.astype(np.int64) for array in arrays if array.dtype == np.int8 and array.ndim > 1] or [np.zeros(1)]


# Files and their proof


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_is_proven_and_verified_and_says_what_a_cpu_computes(
    target: Target, drawn: TrainedRun, tmp_path: Path
) -> None:
    made = export_int8(drawn, tmp_path, target=target)
    certificate = read_certificate(made.path)
    assert certificate.grade == "full"  # all of the 60 pictures
    assert certificate.calibration is not None
    assert certificate.limits == replace(INT8, numeric_share=INT8_HEADROOM * certificate.calibration.error)
    assert [level.name for level in certificate.levels][:3] == ["file", "range", "numeric"]
    assert str(certificate.precision) == ("int8" if target == "cpu" else "int8 stored, fp32 computed")
    calibration = certificate.calibration
    assert (calibration.asked.target, calibration.images, calibration.held_out) == (target, 150, 150)
    assert {tried.method for tried in calibration.tried} == set(int8.METHODS)
    assert sum(layer.work for layer in calibration.layers) == pytest.approx(1)
    assert made.path.stat().st_size < 0.5 * sum(tensor.nbytes for tensor in load_weights(drawn.best).tensors.values())
    levels = {level.name for level in verify(made.path, progress=Silent()).levels}
    assert levels == {"consistency", "entry", "backend", "recorded"}


def test_equal_exports_are_equal_bytes(drawn: TrainedRun, for_cpu: Exported, tmp_path: Path) -> None:
    assert export_int8(drawn, tmp_path).path.read_bytes() == for_cpu.path.read_bytes()


def test_on_part_of_the_pictures_it_is_sampled(drawn: TrainedRun, tmp_path: Path) -> None:
    made = export_int8(drawn, tmp_path, proof_images=50)
    assert read_certificate(made.path).grade == "sampled"


def test_it_runs_on_openvino_in_int8(for_cpu: Exported, drawn: TrainedRun) -> None:
    pytest.importorskip("openvino")
    images = np.array(drawn.started.dataset.val.images)
    with open_runner(for_cpu.path, backend="openvino") as runner:
        assert str(runner.precision) == "int8"
        found = runner(images)
    with open_runner(for_cpu.path) as runner:
        assert (runner(images).argmax(axis=1) == found.argmax(axis=1)).mean() > 0.95
    assert verify(for_cpu.path, backend="openvino", progress=Silent()).levels


def test_an_artifact_that_answers_otherwise_than_at_export_is_not_verified(
    for_cpu: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a processor whose sums overflow."""
    from tinyres.runtime.onnxruntime_cpu import OnnxRuntimeCpu

    real = OnnxRuntimeCpu.infer
    monkeypatch.setattr(OnnxRuntimeCpu, "infer", lambda self, images: np.minimum(real(self, images), 1))
    with pytest.raises(ProofError, match=r"failed the (entry|recorded) level here"):
        verify(for_cpu.path, progress=Silent())


def losing(monkeypatch: pytest.MonkeyPatch, drops: list[float]) -> None:
    """Files get so many points wrong on the pictures held out, the last value for ever."""
    real = int8._Network.made
    left = list(drops)

    def made(self: int8._Network, kept: list[str]) -> tuple[bytes, Calibration, int]:
        content, record, _ = real(self, kept)
        return content, record, round(left.pop(0) * 150 if len(left) > 1 else left[0] * 150)

    monkeypatch.setattr(int8._Network, "made", made)


def test_layers_go_back_to_float32_until_the_drop_holds(drawn: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    losing(monkeypatch, [0.04, 0.02, 0.0])
    heard = Heard()
    checkpoint = load_weights(drawn.best)
    pictures = choose_pictures(drawn.started.dataset, checkpoint, 512)
    _, calibration = next(calibrated(checkpoint, pictures, Int8Options(most_drop=0.003), progress=heard))
    order = sorted(calibration.layers, key=lambda layer: layer.error**2 / layer.work, reverse=True)
    assert set(calibration.kept) == {layer.layer for layer in order[:2]}
    first = next(line for line in heard.lines if "held-out" in line)
    assert first == "-4.00 points on 150 held-out pictures, no layer in float32"


def test_a_drop_of_exactly_what_was_allowed_holds(drawn: TrainedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    losing(monkeypatch, [0.02])
    checkpoint = load_weights(drawn.best)
    pictures = choose_pictures(drawn.started.dataset, checkpoint, 512)
    _, calibration = next(calibrated(checkpoint, pictures, Int8Options(most_drop=0.02), progress=Silent()))
    assert calibration.kept == []


def test_a_drop_that_no_file_keeps_ends_with_the_best_that_was_reached(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, [0.06, 0.02, 0.04])
    with pytest.raises(ProofError, match=r"loses at most 0\.3 points; the best: -2\.00 points on 150") as caught:
        export_int8(drawn, tmp_path, most_drop=0.003)
    assert "fp16" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def strict(monkeypatch: pytest.MonkeyPatch, level: str, *, least: int) -> list[int]:
    """The proof refuses files with fewer than `least` layers in float32; returns how many those had, as it goes."""
    real, rejected = pipeline.prove, []

    def prove(*args: object, **options: object) -> Certificate:
        certificate = real(*args, **options)  # type: ignore[arg-type]
        assert certificate.calibration is not None
        assert certificate.limits.accuracy_drop == 0.5
        if len(certificate.calibration.kept) >= least:
            return certificate
        rejected.append(len(certificate.calibration.kept))
        levels = tuple(replace(one, passed=False) if one.name == level else one for one in certificate.levels)
        return replace(certificate, grade="rejected", levels=levels)

    monkeypatch.setattr(pipeline, "prove", prove)
    return rejected


def test_where_the_proof_does_not_hold_the_drop_more_layers_go_back(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, [0.0])
    rejected = strict(monkeypatch, "accuracy", least=2)
    made = export_int8(drawn, tmp_path, most_drop=0.5)
    assert rejected == [0, 1]
    assert made.certificate.calibration is not None
    assert (len(made.certificate.calibration.kept), made.certificate.calibration.refused) == (2, 2)


def test_the_last_file_that_the_proof_refused_is_set_aside(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losing(monkeypatch, [0.0])
    rejected = strict(monkeypatch, "accuracy", least=100)
    with pytest.raises(ProofError, match="failed the accuracy level"):
        export_int8(drawn, tmp_path, most_drop=0.5)
    assert len(rejected) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["int8-cpu.onnx.rejected"]


def test_what_float32_does_not_mend_ends_the_search_at_once(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rejected = strict(monkeypatch, "backend", least=100)
    with pytest.raises(BackendUnavailable, match="failed the backend level"):
        export_int8(drawn, tmp_path, most_drop=0.5)
    assert rejected == [0]


def test_a_file_that_is_there_is_reused_for_what_it_was_made_for(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export_int8(drawn, tmp_path, proof_images=50)
    exported_again: list[object] = []
    monkeypatch.setattr(pipeline, "export_onnx", lambda *args, **options: exported_again.append(options))

    def again(**changed: object) -> bool:
        exported_again.clear()
        wanted = {"precision": "int8", "dataset": drawn.started.dataset, "progress": Silent(), **changed}
        proven_onnx(drawn.best, made.path, **wanted)  # type: ignore[arg-type]
        return not exported_again

    assert again()
    assert again(proof_images=50)
    assert not again(proof_images=60)
    assert not again(int8=Int8Options(images=100))
    other = replace(drawn.started.dataset, manifest=replace(drawn.started.dataset.manifest, fingerprint="other"))
    assert not again(dataset=other)
    assert not again(batches=(1, 2, 3))


def test_onnx_runtime_must_compute_in_int8_what_is_int8_in_the_file(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "count_int8", lambda content: 1)
    with pytest.raises(
        ProofError, match=r"failed the file level: ONNX Runtime computes 1 of its \d int8 layers in int8"
    ):
        export_int8(drawn, tmp_path)


# Broken calibrations: each is set aside


def without_mean_and_std(checkpoint: Checkpoint) -> bytes:
    preprocess = replace(checkpoint.spec.preprocess, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
    plain = replace(checkpoint, spec=replace(checkpoint.spec, preprocess=preprocess))
    return describe(float_model(plain), plain, "fp32")


def test_ranges_of_pictures_that_were_not_normalised_are_set_aside(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, spoiled = int8.measure, without_mean_and_std(load_weights(drawn.best))
    monkeypatch.setattr(int8, "measure", lambda _content, *args, **options: real(spoiled, *args, **options))
    with pytest.raises(ProofError, match=r"failed the (range|decision) level"):
        export_int8(drawn, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["int8-cpu.onnx.rejected"]


def test_ranges_of_one_picture_repeated_are_set_aside_and_shown_again(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = int8.measure
    monkeypatch.setattr(
        int8,
        "measure",
        lambda content, names, images, **options: real(content, names, np.repeat(images[:1], 50, 0), **options),
    )
    with pytest.raises(ProofError, match=r"failed the range level: .* values of .* are clipped"):
        export_int8(drawn, tmp_path)
    rejected = tmp_path / "int8-cpu.onnx.rejected" / "int8-cpu.onnx"
    assert prove_again(rejected, drawn.best) == ProofError.exit_code


def test_golden_pictures_that_could_show_no_error_elsewhere_are_set_aside(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MOST_ROUNDED", 1e-5)
    monkeypatch.setattr(parity, "consistency", lambda *args: Level.judged("consistency", True, {}, {}, ""))
    with pytest.raises(ProofError, match="failed the entry level: the golden pictures' answers are off by"):
        export_int8(drawn, tmp_path)


def test_a_layer_may_clip_a_thousandth_and_a_few_values() -> None:
    assert judge_clipping({"a": (16 + 100, 100_000), "b": (0, 10)}).passed
    far = judge_clipping({"a": (16 + 101, 100_000), "b": (16, 10)})
    assert (far.passed, "values of a are clipped" in far.detail) == (False, True)
    assert judge_clipping({"small": (17, 20)}).passed is False
    assert judge_clipping({}).passed is False


def test_a_network_that_was_calibrated_for_bgr_is_set_aside(
    drawn: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = int8.float_model

    def swapped(checkpoint: Checkpoint) -> object:
        tensors = dict(checkpoint.tensors)
        tensors["conv1.weight"] = tensors["conv1.weight"].flip(1)
        return real(replace(checkpoint, tensors=tensors))

    monkeypatch.setattr(int8, "float_model", swapped)
    # Its classes are shapes, whatever their colour: all are right, and the answers are not the checkpoint's.
    with pytest.raises(ProofError, match=r"failed the numeric level: error .*; conv1 is the first layer off"):
        export_int8(drawn, tmp_path)


# Commands


def test_the_command_writes_a_file_for_its_target_and_bench_warns_of_another(
    cli: CliRunner, drawn: TrainedRun, tmp_path: Path
) -> None:
    for target in ("cpu", "tensorrt"):
        arguments = ["export", "drawn", "--precision", "int8", "--target", target, "--runs", str(drawn.runs)]
        code, stdout, stderr = outcome(cli, *arguments, "--batch", "1:4:9", "--json")
        assert code == 0, stderr
        assert json.loads(stdout)["artifact"].endswith(f"int8-{target}.onnx")
    contenders = find_contenders(find_model("drawn", drawn.runs), ["onnxruntime-cpu"])
    assert {contender.path.name: contender.warning for contender in contenders} == {
        "int8-cpu.onnx": "",
        "int8-tensorrt.onnx": "its int8 is laid out for tensorrt, not for cpu (--target cpu)",
    }
    heard = Heard()
    results = run_bench(
        contenders, drawn.started.dataset, run="drawn", batches=(1,), effort=QUICK, command="", progress=heard
    )
    assert heard.warned == [
        "onnxruntime-cpu int8-tensorrt: its int8 is laid out for tensorrt, not for cpu (--target cpu)"
    ]
    assert any("laid out for tensorrt" in note for note in notes(results))
    shown = {row.artifact: str(row.precision) for row in results.rows}
    assert shown == {"int8-cpu.onnx": "int8", "int8-tensorrt.onnx": "int8 stored, fp32 computed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "cpu"], "nothing is calibrated but int8"),
        (["--precision", "fp16", "--max-accuracy-drop", "1"], "nothing is calibrated but int8"),
        (["--precision", "int8", "--target", "npu"], "valid: cpu, cuda, tensorrt"),
        (["--precision", "int8", "--calibration-images", "3"], "valid: 32 or more"),
        (["--precision", "int8", "--format", "trt", "--target", "cpu"], "--format trt takes no int8 made for cpu"),
        (["--precision", "int8", "--format", "triton", "--target", "cuda"], "takes no int8 made for cuda"),
    ],
)
def test_what_int8_does_not_do_is_a_usage_error(
    arguments: list[str], message: str, cli: CliRunner, drawn: TrainedRun
) -> None:
    code, _, stderr = outcome(cli, "export", "drawn", "--runs", str(drawn.runs), *arguments)
    assert code == 2
    assert message in " ".join(stderr.split())


def test_an_artifact_is_not_converted_to_another_precision(cli: CliRunner, for_cpu: Exported) -> None:
    for arguments, message in (
        (["--precision", "int8"], "is an ONNX file already"),
        (["--format", "trt", "--precision", "fp16"], "int8-cpu.onnx is int8, and not converted to fp16"),
        (["--format", "trt", "--precision", "int8", "--max-accuracy-drop", "1"], "is not calibrated again"),
    ):
        code, _, stderr = outcome(cli, "export", str(for_cpu.path), *arguments)
        assert code == 2
        assert message in " ".join(stderr.split())


def test_triton_serves_the_layout_of_cpus_on_cpus_and_the_others_as_engines_alone(
    for_cpu: Exported, drawn: TrainedRun, tmp_path: Path
) -> None:
    written = export_triton(for_cpu.path, tmp_path / "triton", progress=Silent())
    config = (written.folder / "models" / written.model / "config.pbtxt").read_text()
    assert "KIND_CPU" in config
    assert not (written.folder / "build_plan.sh").exists()
    made = export_int8(drawn, tmp_path, target="tensorrt")
    with pytest.raises(UsageError, match="is laid out for tensorrt, and Triton would serve it with ONNX Runtime"):
        export_triton(made.path, tmp_path / "other", progress=Silent())


def test_the_data_of_another_network_is_refused(drawn: TrainedRun, tmp_path: Path) -> None:
    dataset = drawn.started.dataset
    other = replace(dataset, manifest=replace(dataset.manifest, class_ids=("x", "y", "z")))
    with pytest.raises(UsageError, match="has other classes than the model"):
        export_onnx(drawn.best, tmp_path / "x.onnx", precision="int8", dataset=other, progress=Silent())


def test_a_split_without_pictures_is_refused(drawn: TrainedRun, tmp_path: Path) -> None:
    dataset = drawn.started.dataset
    empty = replace(dataset, train=Split(images=dataset.train.images[:0], labels=dataset.train.labels[:0]))
    with pytest.raises(DataError, match="0 training pictures are too few"):
        export_onnx(drawn.best, tmp_path / "x.onnx", precision="int8", dataset=empty, progress=Silent())
