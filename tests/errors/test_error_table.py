"""Each error that a user can meet, as it reads: docs/errors.md is the table, and every row of it is run here."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import error_kit
import numpy as np
import pytest
from conftest import REPOSITORY
from error_cases import PAGE, Case, cases
from error_sites import KINDS, path_of, quoted, runs_of, sites, sites_of, unquoted
from PIL import Image
from tiny import TrainedRun
from typer.testing import CliRunner

from tinyres import Classifier, ModelSpec, Preprocess, errors, open_runner
from tinyres.cli import app
from tinyres.errors import TinyresError
from tinyres.export.artifact import Exported

NAMES = {
    "Classifier": Classifier,
    "Image": Image,
    "ModelSpec": ModelSpec,
    "Preprocess": Preprocess,
    "np": np,
    "open_runner": open_runner,
}
"""What an expression of the cases may use."""
CASES = cases()
ELSEWHERE = {
    "tests/bench/test_gate.py::test_before_is_only_known_with_an_earlier_bench": ["bench/gate.py::failures"],
    "tests/data/test_cache.py::test_a_link_to_nothing_is_an_unreadable_picture": [
        "tinyres/data/store.py::FolderStore.read"
    ],
    "tests/data/test_download.py::test_a_server_that_always_breaks_off_at_once_ends_with_a_hint": [
        "tinyres/data/download.py::_fetch_all"
    ],
    "tests/data/test_store.py::test_a_damaged_member_is_a_data_error": ["tinyres/data/store.py::ZipStore.read"],
    "tests/export/test_calibration.py::test_a_layer_that_answers_nan_has_no_range": ["export/calibration.py::measure"],
    "tests/export/test_engine.py::test_an_engine_that_answers_otherwise_is_set_aside": ["export/artifact.py::settle"],
    "tests/export/test_engine.py::test_the_destination_follows_what_is_here": ["export/engine.py::choose_destination"],
    "tests/export/test_engine.py::test_what_is_missing_is_named_with_the_command": ["export/engine.py::_load"],
    "tests/export/test_engine.py::test_without_its_golden_vectors_a_file_is_not_built_from": [
        "export/golden.py::copy_golden"
    ],
    "tests/export/test_golden.py::test_absent_damaged_and_foreign_vectors_are_refused": [
        "export/golden.py::read_golden"
    ],
    "tests/export/test_graph.py::test_a_file_that_breaks_a_promise_is_refused": ["export/onnx.py::check_file"],
    "tests/export/test_tensorrt.py::test_half_precision_that_was_widened_is_no_engine": [
        "export/tensorrt.py::_prove_types"
    ],
    "tests/export/test_tensorrt.py::test_the_inspector_confirms_a_precision_or_refuses_it": [
        "export/tensorrt.py::inspected_precision"
    ],
    "tests/export/test_verify.py::test_a_changed_file_is_noticed_by_its_hash_and_by_its_answers": [
        "export/verify.py::verify"
    ],
    "tests/runtime/test_classifier.py::test_an_answer_that_is_no_number_is_no_prediction": [
        "tinyres/runtime/classifier.py::Classifier._classify"
    ],
    "tests/runtime/test_metadata.py::test_a_file_cut_short_or_changed_is_an_artifact_or_one_clear_error": [
        "tinyres/runtime/contained.py::require_contained"
    ],
    "tests/runtime/test_onnxruntime_gpu.py::test_a_session_that_fell_back_is_refused": [
        "tinyres/runtime/onnxruntime_cpu.py::open_session"
    ],
    "tests/runtime/test_openvino.py::test_float32_that_would_be_computed_in_less_is_refused": [
        "tinyres/runtime/openvino_cpu.py::open_backend"
    ],
    "tests/runtime/test_runner.py::test_a_missing_library_names_the_command_that_installs_it": [
        "tinyres/runtime/backends.py::open_runner",
        "tinyres/runtime/backends.py::why_unavailable",
    ],
    "tests/runtime/test_runner.py::test_an_answer_of_another_shape_or_type_is_a_backend_failure": [
        "tinyres/runtime/runner.py::Runner.__call__"
    ],
    "tests/runtime/test_runner.py::test_what_cannot_be_compiled_is_the_backends_failure": [
        "tinyres/runtime/pytorch.py::_compiled"
    ],
    "tests/runtime/test_tensorrt.py::test_a_null_engine_is_refused_with_the_librarys_words": [
        "tinyres/runtime/tensorrt.py::open_engine"
    ],
    "tests/runtime/test_tensorrt.py::test_a_run_that_fails_says_what_the_library_logged": [
        "tinyres/runtime/tensorrt.py::Engine._run"
    ],
    "tests/runtime/test_tensorrt.py::test_memory_that_is_not_there_is_an_error_of_ours": [
        "tinyres/runtime/cuda.py::Cuda.call"
    ],
    "tests/test_api.py::test_a_missing_package_and_the_systems_refusals_read_as_on_the_command_line": [
        "tinyres/api.py::_errors_as_ours"
    ],
    "tests/test_api.py::test_what_does_not_fit_is_a_usage_error_before_anything_is_done": ["tinyres/api.py::train"],
    "tests/test_checkpoint.py::test_a_checkpoint_that_is_not_there_is_named": ["tinyres/checkpoint.py::_read"],
    "tests/test_checkpoint.py::test_a_header_that_does_not_fit_is_refused": ["tinyres/checkpoint.py::load_state"],
    "tests/reliability/test_fuzz.py::test_labels_of_a_cache_that_cannot_be_are_a_data_error": [
        "tinyres/data/dataset.py::read_cache"
    ],
    "tests/errors/test_rare_errors.py::test_a_library_that_fails_on_a_picture_is_one_line": [
        "tinyres/runtime/onnxruntime_cpu.py::OnnxRuntimeCpu.infer",
        "tinyres/runtime/onnxruntime_cuda.py::OnnxRuntimeGpu._part",
        "tinyres/runtime/openvino_cpu.py::OpenVino.infer",
    ],
    "tests/errors/test_rare_errors.py::test_a_network_that_fails_in_pytorch_is_one_line": [
        "tinyres/runtime/pytorch.py::PyTorch.infer"
    ],
    "tests/errors/test_rare_errors.py::test_a_passport_with_values_that_cannot_be_is_refused": [
        "tinyres/runtime/passport.py::Passport.__post_init__"
    ],
    "tests/errors/test_rare_errors.py::test_a_timing_cache_that_cannot_be_read_is_one_line": [
        "export/tensorrt.py::_timing_cache"
    ],
    "tests/errors/test_rare_errors.py::test_what_safetensors_makes_of_a_full_disk_is_a_storage_error": [
        "tinyres/checkpoint.py::_write"
    ],
    "tests/test_records.py::test_an_error_names_the_source_and_the_field": ["tinyres/records.py::from_json"],
    "tests/training/test_compute.py::test_a_compiler_that_fails_is_one_line_and_leaves_the_model_as_it_was": [
        "tinyres/training/compute.py::compile_model"
    ],
    "tests/training/test_distributed.py::test_a_process_that_dies_ends_the_run_and_it_can_be_resumed": [
        "tinyres/training/distributed.py::joined"
    ],
    "tests/training/test_train.py::test_a_full_disk_ends_a_training_with_what_was_kept": [
        "tinyres/training/trainer.py::Trainer.save"
    ],
    "tests/training/test_train.py::test_strict_resume_refuses_to_go_on_elsewhere": [
        "tinyres/training/trainer.py::Trainer._tell_of"
    ],
    "tests/training/test_watch.py::test_without_the_package_tensorboard_names_its_extra": [
        "tinyres/training/watch.py::Watch.__init__"
    ],
}
"""A test -> the functions whose errors it meets without quoting a message that is no other's."""
UNTESTED = {
    "export/tensorrt.py::build_engine": "TensorRT takes what check_file lets through, in rising batches",
    "tinyres/training/trainer.py::Trainer._restore": "the data is compared before, when the run is resumed",
}
"""A function -> why no test meets an error of it."""
ABOUT_ERRORS = ("error_cases.py", "error_kit.py", "error_sites.py", "test_error_table.py")


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    code: int
    message: str
    hint: str
    rest: str
    """What else was said."""
    made_at: frozenset[tuple[str, int]]
    """The lines that made an error on the way."""


class Bench:
    """Runs cases in the kit, each once."""

    def __init__(self, kit: Path) -> None:
        self.kit = kit
        self.outcomes: dict[Case, Outcome] = {}

    def run(self, case: Case) -> Outcome:
        if case not in self.outcomes:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(self.kit)
                made: set[tuple[str, int]] = set()
                patch.setattr(TinyresError, "__init__", _recording(made))
                self.outcomes[case] = _evaluate(case, made) if case.is_python else _type(case, made)
        return self.outcomes[case]


def _recording(made: set[tuple[str, int]]) -> object:
    real = TinyresError.__init__

    def init(self: TinyresError, message: str, *, hint: str | None = None) -> None:
        frame = sys._getframe(1)
        while frame.f_code.co_filename == errors.__file__ and frame.f_back is not None:  # its helpers make them too
            frame = frame.f_back
        made.add((frame.f_code.co_filename, frame.f_lineno))
        real(self, message, hint=hint)

    return init


def _type(case: Case, made: set[tuple[str, int]]) -> Outcome:
    done = CliRunner().invoke(app, shlex.split(case.command)[1:])
    said = {"error": "", "hint": ""}
    rest = [done.stdout]
    for line in done.stderr.splitlines():
        kind, _, text = line.partition(": ")
        if line.startswith("{"):
            told = json.loads(line)
            said = {"error": told["message"], "hint": told["hint"] or ""}
        elif kind in said and not said[kind]:
            said[kind] = text
        else:
            rest.append(line)
    return Outcome(done.exit_code, said["error"], said["hint"], "\n".join(rest), frozenset(made))


def _evaluate(case: Case, made: set[tuple[str, int]]) -> Outcome:
    with pytest.raises(TinyresError) as caught:
        eval(case.command, dict(NAMES))  # noqa: S307 - the table's own expressions
    error = caught.value
    return Outcome(error.exit_code, str(error), error.hint or "", "", frozenset(made))


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory, trained: TrainedRun, exported: Exported, picture_folder: Path
) -> Bench:
    return Bench(error_kit.make(tmp_path_factory.mktemp("kit"), trained, exported, picture_folder))


def runs_here(case: Case) -> bool:
    """Whether the packages that a case is about are here, or absent, as the case takes them to be."""
    name = case.where.removeprefix("without ")
    return not name or _is_installed(name) != case.where.startswith("without ")


def _is_installed(name: str) -> bool:
    if name.isidentifier():
        return importlib.util.find_spec(name) is not None
    return any(found.name == name for found in metadata.distributions())


def reads_as(shape: str, text: str) -> bool:
    """Whether `text` is of a `shape` in which … stands for what differs from machine to machine."""
    return re.fullmatch(re.escape(shape).replace("…", ".+"), text) is not None


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command)
def test_an_error_reads_as_the_table_says(case: Case, bench: Bench) -> None:
    if not runs_here(case):
        pytest.skip(f"{case.where} decides what is said here")
    before = sorted(bench.kit.rglob("*"))
    outcome = bench.run(case)
    assert outcome.code == case.code
    assert reads_as(case.message, outcome.message), outcome.message
    assert reads_as(case.hint, outcome.hint), outcome.hint
    assert "Traceback" not in outcome.rest
    assert "error: " not in outcome.rest
    assert sorted(bench.kit.rglob("*")) == before


def test_every_row_of_the_page_is_a_case_and_says_what_mends_it() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(CASES) == len(rows) > 150
    assert len({case.command for case in CASES}) == len(CASES)
    assert [case.command for case in CASES if not case.mend] == []


def test_the_page_has_the_exit_codes_of_the_errors() -> None:
    table = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name: int(code) for code, names in table for name in re.findall(r"`(\w+)`", names)}
    assert told == {name: getattr(errors, name).exit_code for name in KINDS}
    assert [code for code, _ in table] == ["0", "1", "2", "3", "4", str(errors.EXIT_INTERRUPTED)]


@pytest.mark.slow
def test_every_place_that_makes_an_error_is_tested(bench: Bench) -> None:
    here = [case for case in CASES if runs_here(case)]
    made = {(path_of(file), line) for case in here for file, line in bench.run(case).made_at if _ours(file)}
    reached = {site for site in sites() for file, line in made if site.file == file and site.first <= line <= site.last}
    shown = {run for case in CASES if case not in here for run in runs_of(case.message)}
    told_of = set(unquoted(quoted(ABOUT_ERRORS) | shown, sites()))
    left = told_of - reached
    named = {place for places in ELSEWHERE.values() for place in places} | set(UNTESTED)
    untested = [str(site) for site in left if site.place not in named]
    assert sorted(untested) == [], "add a row to docs/errors.md, a test that quotes the message, or a line in ELSEWHERE"
    assert sorted(named - {site.place for site in told_of}) == [], "these need no line in ELSEWHERE or UNTESTED"


def _ours(file: str) -> bool:
    return Path(file).resolve().is_relative_to(REPOSITORY)


@pytest.mark.parametrize("tested", ELSEWHERE)
def test_what_is_tested_elsewhere_is(tested: str) -> None:
    file, _, name = tested.partition("::")
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_a_new_error_without_a_test_is_found() -> None:
    module = "def work(name):\n    raise UsageError(f'the frobnicator {name} is not oiled well')\n"
    (planted,) = sites_of(module, "tinyres/new.py")
    among = (*sites(), planted)
    assert planted in unquoted(frozenset(), among)
    assert planted in unquoted(quoted(ABOUT_ERRORS), among)
    assert planted not in unquoted(frozenset({("is", "not", "oiled")}), among)


@pytest.mark.parametrize(
    ("source", "pieces"),
    [
        ("raise UsageError('no such thing')", [("no such thing",)]),
        ("raise error(f'cannot read {path}: {why}')", [("cannot read ", ": ", "")]),
        ("def f():\n    return missing_extra('drawing', 'm', 'train')", [("drawing needs the package m, which is…",)]),
        ("require_choice('axis', by, [])", [("there is no axis ",)]),
        ("raise UsageError(text)", [()]),
        ("raise ValueError('of ours')", []),
    ],
)
def test_sites_are_found_in_all_their_forms(source: str, pieces: list[tuple[str, ...]]) -> None:
    found = [site.pieces for site in sites_of(source, "x.py")]
    assert len(found) == len(pieces)
    for shape, got in zip(pieces, found, strict=True):
        assert reads_as(" | ".join(shape), " | ".join(got))


@pytest.mark.slow
def test_the_table_takes_a_minute_at_most(bench: Bench) -> None:
    started = time.process_time()
    for case in filter(runs_here, CASES):
        bench.run(case)
    assert time.process_time() - started < 60
