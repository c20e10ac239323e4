"""The commands as a user types them: answers on stdout, the rest on stderr, one line and a code for every mistake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import TrainedRun, outcome
from typer.testing import CliRunner

from tinyres.cli.command import run_guarded
from tinyres.console import Console
from tinyres.export.artifact import Exported

TINY_SIZES = ["--set", "blocks=1,1", "--set", "widths=8,16", "--set", "image_size=16", "--set", "batch_size=16"]


@pytest.mark.slow
def test_the_whole_path_from_a_folder_of_pictures(cli: CliRunner, picture_folder: Path, tmp_path: Path) -> None:
    runs = ["--runs", tmp_path / "runs"]
    picture = next((picture_folder / "val" / "ring").iterdir())
    code, said, log = outcome(
        cli, "train", "--data", picture_folder, "--recipe", "demo", *TINY_SIZES, "--set", "epochs=2", *runs
    )
    assert (code, "demo-1: finished" in said) == (0, True), log
    assert "next: tinyres export demo-1" in said
    code, said, log = outcome(cli, "export", "--batch", "1:4:9", *runs)
    assert code == 0, log
    assert "the newest run: demo-1" in log
    assert "fp32.onnx: proven (full)" in said
    code, said, _ = outcome(cli, "predict", picture, "--top", 2, *runs)
    assert (code, len(said.splitlines())) == (0, 3)
    code, said, log = outcome(cli, "bench", "--quick", "--batch", "1", "--threads", 1, *runs)
    assert code == 0, log
    assert "onnxruntime-cpu fp32" in said
    assert (tmp_path / "runs" / "demo-1" / "bench" / "results.json").is_file()
    code, said, _ = outcome(cli, "eval", *runs, "--json")
    assert (code, json.loads(said)["accuracy"]["images"]) == (0, 15)
    code, _, _ = outcome(cli, "plot", "demo-1", *runs)
    assert code == 0


def test_json_answers_are_json_alone(cli: CliRunner, exported: Exported, trained: TrainedRun) -> None:
    picture = next(Path(trained.started.config.data, "val", "ring").iterdir())
    code, said, _ = outcome(cli, "predict", picture, "--model", exported.path, "--json")
    assert code == 0
    assert [guess["id"] for guess in json.loads(said)[0]["best"]] != []
    code, said, _ = outcome(cli, "recipes", "--json")
    assert {recipe["name"] for recipe in json.loads(said)} >= {"seed", "demo"}
    code, said, _ = outcome(cli, "recipes", "seed", "--json")
    assert [(recipe["name"], recipe["dropout"]) for recipe in json.loads(said)] == [("seed", 0.4)]
    _, said, _ = outcome(cli, "recipes", "finetune")
    assert said.endswith("next: tinyres train --recipe finetune --init nano\n")


def test_quiet_leaves_only_the_answer(cli: CliRunner, trained: TrainedRun) -> None:
    code, said, log = outcome(cli, "eval", "--quiet", "--runs", trained.runs)
    assert (code, log) == (0, "")
    assert said.startswith("top-1")


def test_stats_shows_both_kinds_of_std(cli: CliRunner, picture_folder: Path) -> None:
    code, said, _ = outcome(cli, "data", "stats", "--data", picture_folder, "--image-size", 16)
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()[1:4]] == ["mean", "std", "std"]


def bad_inputs(folder: Path) -> None:
    """Files that are not what a command expects."""
    (folder / "empty").mkdir()
    (folder / "text.jpg").write_text("not a picture")
    (folder / "text.onnx").write_text("not a model")
    (folder / "foreign.pth").write_bytes(b"not a state dict")
    (folder / "foreign.safetensors").write_bytes(b"not weights")
    (folder / "old.json").write_text('{"schema": 1}')
    (folder / "cut.zip").write_bytes(b"PK\x03\x04 cut short")


MISTAKES = [
    (["train", "--data", "missing"], 2, "--data missing: there is no such folder or zip"),
    (["train", "--data", "empty"], 2, "0 class folders with pictures"),
    (["train", "--data", "cut.zip"], 2, "cut.zip is not a readable zip"),
    (["train", "--data", "PICTURES", "--recipe", "sede"], 2, "did you mean 'seed'?"),
    (
        ["train", "--data", "PICTURES", "--recipe", "seed", "--set", "learning_rate=1"],
        2,
        "recipe seed has no field 'learning_rate'",
    ),
    (["train", "--data", "PICTURES", "--set", "epochs=0"], 2, "epochs cannot be 0"),
    (["train", "--data", "PICTURES", "--max-time", "-5m"], 2, "'-5m' is no length of time"),
    (["train", "--data", "PICTURES", "--split", "tset"], 2, "there is no split 'tset'"),
    (["train", "--data", "PICTURES", "--name", "../out"], 2, "is no run name"),
    (["train", "--resume", "RUN", "--profile"], 2, "--profile looks at a new training"),
    (["train", "--data", "PICTURES", "--init", "text.onnx"], 2, "text.onnx is no checkpoint to start from"),
    (["train", "--data", "PICTURES", "--recipe", "finetune"], 2, "hint: --init MODEL names a run"),
    (["train", "--resume", "RUN", "--set", "epochs=9"], 2, "a resumed run keeps its recipe"),
    (
        ["train", "--data", "PICTURES", "--recipe", "seed", "--set", "blocks=1"],
        2,
        "hint: for example --set blocks=3,4,6,3",
    ),
    (["predict", "empty", "--model", "RUN"], 2, "there is no picture in empty"),
    (["info", "text.jpg"], 2, "info does not describe .jpg files"),
    (["train", "--resume", "tinny"], 2, "there is no run 'tinny'"),
    (["import", "foreign.pth"], 2, "foreign.pth is not a state dict that loads safely"),
    (["import", "missing.pth"], 2, "there is no file missing.pth"),
    (["export"], 2, "there is no finished run in runs"),
    (["export", "foreign.safetensors"], 2, "foreign.safetensors is not a checkpoint"),
    (["export", "foreign.pth"], 2, "hint: tinyres import foreign.pth"),
    (["export", "text.onnx"], 2, "text.onnx is an ONNX file already"),
    (["export", "text.onnx", "--format", "trt", "--runtime", "trt"], 4, "pip install 'tinyres[trt]'"),
    (["export", "text.onnx", "--format", "triton"], 2, "text.onnx has no certificate"),
    (["export", "RUN", "--precision", "f16"], 2, "did you mean 'fp16'?"),
    (["export", "RUN", "--runtime", "tensorflow"], 2, "there is no runtime 'tensorflow'"),
    (["export", "RUN", "--format", "trt", "--optimization-level", "6"], 2, "optimization-level"),
    (["export", "RUN", "--format", "onxn"], 2, "did you mean 'onnx'?"),
    (["export", "RUN", "--precision", "fp23"], 2, "did you mean 'fp32'?"),
    (["export", "RUN", "--batch", "0:1:2"], 2, "batches are whole numbers from 1 to 4096"),
    (["export", "RUN", "--batch", "8:4:2"], 2, "expected least:usual:most, rising"),
    (["export", "RUN", "--proof-images", "0"], 2, "proof-images"),
    (["predict", "missing.png", "--model", "RUN"], 2, "cannot read missing.png: No such file"),
    (["predict", "text.jpg", "--model", "RUN"], 2, "text.jpg is not a readable picture"),
    (["predict", "text.jpg", "--model", "text.onnx"], 2, "text.onnx is not an ONNX model"),
    (["bench", "RUN", "--batch", ""], 2, "batches are whole numbers"),
    (["bench", "RUN", "--backends", "tensorflow"], 2, "there is no backend 'tensorflow'"),
    (["bench", "RUN", "--backends", "tensorrt"], 4, "nothing can be measured here: tensorrt"),
    (["bench", "RUN", "--quick", "--thorough"], 2, "--quick and --thorough exclude each other"),
    (["bench", "RUN", "--fail-if", "p50>5"], 2, "p50 needs a unit"),
    (["bench", "RUN", "--fail-if", "p55>5ms"], 2, "there is no 'p55'"),
    (["bench", "RUN", "--fail-if", "p50@7>5ms"], 2, "is about a batch size that --batch does not name"),
    (["bench", "RUN", "--fail-if", "fast"], 2, "hint: for example 'p50>5ms'"),
    (["bench", "RUN", "--fail-if", "slower-than-before"], 2, "hint: --against results.json"),
    (["bench", "RUN", "--against", "missing.json"], 2, "cannot read missing.json"),
    (["bench", "RUN", "--against", "text.onnx"], 2, "text.onnx is not JSON"),
    (["bench", "RUN", "--against", "old.json"], 2, "old.json has version 1 of the schema; valid: 2"),
    (["bench", "text.onnx"], 2, "text.onnx has no certificate"),
    (["eval", "RUN", "--data", "missing"], 2, "there is no such folder or zip"),
    (["trian"], 2, "No such command 'trian'"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES, ids=[" ".join(case[0]) for case in MISTAKES])
def test_a_mistake_is_one_clear_line_with_its_code_and_leaves_nothing(
    arguments: list[str],
    code: int,
    message: str,
    cli: CliRunner,
    picture_folder: Path,
    exported: Exported,
    trained: TrainedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    bad_inputs(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    known = {"PICTURES": str(picture_folder), "RUN": str(trained.started.run.path)}
    got, said, log = outcome(cli, *(known.get(word, word) for word in arguments))
    assert (got, said) == (code, ""), log
    assert message in " ".join(log.replace("│", " ").split())
    assert "Traceback" not in log
    errors = [line for line in log.splitlines() if line.startswith(("error: ", "Usage:", "Error"))]
    assert len(errors) <= 1 or log.startswith("Usage:")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_debug_shows_where_an_error_came_from(cli: CliRunner) -> None:
    code, _, log = outcome(cli, "train", "--data", "missing", "--debug")
    assert code == 2
    assert "Traceback" in log
    assert "error: --data missing" in log


def test_ctrl_c_before_anything_was_saved_leaves_no_run(
    cli: CliRunner, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinyres.training.train.train", interrupted)
    code, said, log = outcome(
        cli, "train", "--data", picture_folder, "--set", "image_size=16", "--name", "early", "--runs", tmp_path / "runs"
    )
    assert (code, said, log.splitlines()[-1]) == (130, "", "interrupted")
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_answer_that_cannot_be_written_is_no_defect() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "tinyres", "recipes"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: cannot write the answer to stdout: No space left")


def test_a_package_that_is_not_installed_is_named_with_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    assert run_guarded(Console(), work) == 4
    said = capsys.readouterr().err
    assert said == (
        "error: this command needs the package torch, which is not installed\nhint: pip install 'tinyres[train]'\n"
    )


def test_a_full_or_closed_output_folder_is_one_line(cli: CliRunner, trained: TrainedRun, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, log = outcome(cli, "export", trained.started.run.path, "--out", tmp_path / "file" / "below")
    assert code == 1
    assert "error: cannot write" in log


def test_the_demo_is_never_taken_for_the_newest_run(cli: CliRunner, trained: TrainedRun, tmp_path: Path) -> None:
    shutil.copytree(trained.started.run.path, tmp_path / "demo")
    code, _, log = outcome(cli, "export", "--runs", tmp_path)
    assert code == 2
    assert "there is no finished run" in log


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["recipes"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom tinyres.cli import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'onnx', 'onnxruntime', 'matplotlib', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert ended.stdout
    assert ended.stderr.splitlines()[-1] == "[]"


def test_the_module_runs_like_the_command() -> None:
    ended = subprocess.run([sys.executable, "-m", "tinyres", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("tinyres ")


def test_info_takes_a_run_by_its_name(
    cli: CliRunner, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(trained.runs)
    code, said, _ = outcome(cli, "info", "tiny")
    assert (code, said.splitlines()[0]) == (0, "runs/tiny: run")


def test_without_its_data_a_file_that_was_proven_better_is_kept(
    cli: CliRunner, trained: TrainedRun, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained.started.run.path, tmp_path / "runs" / "mine"))
    options = ["mine", "--runs", tmp_path / "runs"]
    assert outcome(cli, "export", *options)[0] == 0
    made = (run / "export" / "fp32.onnx.json").read_text()
    config = run / "config.json"
    config.write_text(config.read_text().replace(trained.started.config.data, str(tmp_path / "gone")))
    options += ["--cache", tmp_path / "empty"]
    code, said, log = outcome(cli, "export", *options)
    assert (code, "proven (full)" in said) == (0, True)
    assert "warning: kept" in log
    assert "without the data a new proof would be weaker" in log
    assert (run / "export" / "fp32.onnx.json").read_text() == made
    (run / "export" / "fp32.onnx").unlink()  # then the weaker proof is all there is
    code, said, log = outcome(cli, "export", *options)
    assert (code, "proven (numeric)" in said) == (0, True), log


def test_an_export_of_a_training_that_stopped_says_so(cli: CliRunner, trained: TrainedRun, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained.started.run.path, tmp_path / "runs" / "mine"))
    (run / "state.json").write_text((run / "state.json").read_text().replace('"finished"', '"stopped"'))
    code, _, log = outcome(cli, "export", "mine", "--runs", tmp_path / "runs")
    assert code == 0
    assert "warning: the training of mine is stopped: tinyres train --resume mine goes on with it" in log


def test_data_stats_shows_how_evenly_pictures_lie_in_classes(cli: CliRunner, own_pictures: Path) -> None:
    for number, path in enumerate(sorted((own_pictures / "train" / "ring").iterdir())):
        if number >= 3:
            path.unlink()
    (own_pictures / "train" / "ring" / "bad.png").write_bytes(b"no picture")
    code, said, _ = outcome(cli, "data", "stats", "--data", own_pictures, "--image-size", 16)
    assert code == 0
    lines = said.splitlines()
    assert lines[0] == f"{own_pictures}: 43 train, 15 val pictures of 3 classes, 16x16; 1 unreadable"
    assert lines[1] == "train: 3 pictures (ring) to 20 (circle) a class"
    assert lines[2].startswith("mean")
    assert lines[-1] == f"next: tinyres train --data {own_pictures} --init nano"
    shutil.rmtree(own_pictures / "val")
    _, said, _ = outcome(cli, "data", "stats", "--data", own_pictures, "--image-size", 16)
    assert said.splitlines()[1].startswith("val: about a tenth, held back by name")


def test_the_demo_asks_for_pytorch_before_it_begins(
    cli: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyres.cli.machine.find_spec", lambda _: None)
    code, _, log = outcome(cli, "demo", "--runs", tmp_path / "runs")
    assert (code, "pip install 'tinyres[all-cpu]'" in log, (tmp_path / "runs").exists()) == (4, True, False)
    assert "the demo, which trains, needs the package torch" in log


def test_files_of_a_format_that_is_not_read_are_counted_at_every_use(cli: CliRunner, own_pictures: Path) -> None:
    (own_pictures / "train" / "ring" / "phone.HEIC").write_bytes(b"no picture here")
    for _ in range(2):
        code, _, log = outcome(cli, "data", "stats", "--data", own_pictures, "--image-size", 16)
        assert (code, "warning: 1 .heic file left out" in log) == (0, True)
