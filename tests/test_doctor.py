"""Each finding fires on a machine that is acted, and none on a healthy one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from acted_cuda import Cuda
from tiny import TrainedRun
from typer.testing import CliRunner

from tinyres import doctor, environment
from tinyres.cli import app
from tinyres.doctor import Finding, gpus, machine, packages, places
from tinyres.doctor.ranges import fits
from tinyres.files import atomic_path, temporary_folder
from tinyres.runtime import cuda

Patch = pytest.MonkeyPatch


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def named(findings: list[Finding], name: str) -> Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def installed(monkeypatch: Patch, versions: dict[str, str]) -> None:
    """Act that these distributions are installed, beside the real ones."""

    def version(name: str) -> str:
        if name in versions:
            return versions[name]
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "metadata", SimpleNamespace(**{**vars(metadata), "version": version}))


def test_a_healthy_machine_has_no_problem(tmp_path: Path) -> None:
    findings = doctor.examine(tmp_path, tmp_path)
    assert [found for found in findings if found.state == "problem"] == []
    assert "onnxruntime" in named(findings, "onnxruntime-cpu").detail
    assert "FIX" not in doctor.describe(findings)
    assert not any("could not be looked at" in found.detail for found in findings)


def test_nothing_is_changed_and_no_torch_imported(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom tinyres.doctor import examine\n"
        "examine(Path('cache'), Path('runs'))\nprint('torch' in sys.modules)"
    )
    without_driver = {**os.environ, "PATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=without_driver, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "probe",
    [(machine, "python"), (machine, "terminal"), (gpus, "cuda"), (packages, "backends"), (places, "leftovers")],
    ids=lambda probe: probe[1],
)
def test_a_probe_that_raises_is_a_line_and_the_rest_is_looked_at(
    probe: tuple[object, str], monkeypatch: Patch, tmp_path: Path
) -> None:
    def raises(*_: object) -> None:
        raise OSError("it is odd\nhere")

    whole = doctor.examine(tmp_path, tmp_path)
    monkeypatch.setattr(*probe, raises)
    findings = doctor.examine(tmp_path, tmp_path)
    (broken,) = [found for found in findings if found.detail == "could not be looked at: OSError: it is odd"]
    assert (broken.name, broken.state) == (probe[1], "note")
    assert {found.name for found in findings} >= {found.name for found in whole} - {probe[1], *packages.BACKENDS}


def test_the_exit_code_is_1_only_if_something_is_to_be_fixed(
    cli: CliRunner, monkeypatch: Patch, tmp_path: Path
) -> None:
    arguments = ["doctor", "--cache", str(tmp_path), "--runs", str(tmp_path)]
    assert cli.invoke(app, arguments).exit_code == 0
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _place: Usage(10**12, 10**12, 10**6))
    done = cli.invoke(app, [*arguments, "--json"])
    assert done.exit_code == 1
    assert "problem" in {found["state"] for found in json.loads(done.stdout)}


def test_details_are_wrapped_and_commands_left_whole() -> None:
    mend = "pip install " + "x" * 100
    told = doctor.describe([Finding("cache", "problem", "word " * 30, mend)], 80)
    *lines, last = told.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("FIX cache ")
    assert all(len(line) <= 80 for line in lines)
    assert all(line.startswith(" " * 27 + "word") for line in lines[1:])
    assert last.strip() == mend


# --- the machine


def test_a_python_out_of_range_is_found_out(monkeypatch: Patch) -> None:
    monkeypatch.setattr(machine.platform, "python_version", lambda: "3.9.18")
    found = machine.python()
    assert (found.state, found.detail) == ("problem", "3.9.18, and tinyres needs >=3.10")
    assert found.mend == "install a Python >=3.10"


def test_a_processor_without_bf16_is_told_what_follows(monkeypatch: Patch) -> None:
    here = environment.capture()
    monkeypatch.setattr(environment, "capture", lambda: replace(here, instruction_sets=("avx2", "avx512_vnni")))
    processor, bf16 = machine.processor()
    assert "fast arithmetic: fp32, int8 (VNNI)" in processor.detail
    assert (bf16.name, bf16.state, "training computes in fp32" in bf16.detail) == ("bf16", "note", True)
    assert "--precision int8" in bf16.mend
    monkeypatch.setattr(environment, "capture", lambda: replace(here, instruction_sets=("avx2", "amx_bf16")))
    assert [found.name for found in machine.processor()] == ["processor"]


def test_a_terminal_that_cannot_show_utf8_is_found_out(monkeypatch: Patch) -> None:
    monkeypatch.setattr(machine.sys, "stdout", SimpleNamespace(encoding="ANSI_X3.4-1968"))
    found = machine.terminal()
    assert (found.state, "stdout: ANSI_X3.4-1968" in found.detail) == ("note", True)
    assert "PYTHONUTF8=1" in found.mend
    monkeypatch.setattr(machine.sys, "stdout", SimpleNamespace(encoding="UTF-8"))
    assert machine.terminal().state == "ok"


# --- the packages


def test_both_onnxruntime_packages_are_found_out(monkeypatch: Patch) -> None:
    installed(monkeypatch, {"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"})
    found = packages.onnxruntime()
    assert (found.state, found.mend.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")) == ("problem", True)
    installed(monkeypatch, {"onnxruntime": "1.32.0"})
    assert packages.onnxruntime().state == "ok"


def test_a_missing_library_names_its_command(monkeypatch: Patch) -> None:
    real = packages.importlib.util.find_spec
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    assert named(packages.backends(), "pytorch").mend == "pip install 'tinyres[train]'"
    assert "torch" in packages.training().detail


def test_onnxruntimes_gpu_package_replaces_the_other() -> None:
    found = named(packages.backends(), "onnxruntime-cuda")
    assert found.mend.startswith("pip uninstall -y onnxruntime")


@pytest.mark.parametrize(
    ("versions", "detail", "mend"),
    [
        ({"numpy": "1.26.4"}, "numpy 1.26.4 is outside >=2.0", "pip install 'numpy>=2.0'"),
        ({"numpy": None}, "numpy is not installed", "pip install 'numpy>=2.0'"),
        ({"torch": "2.5.1+cu121"}, "torch 2.5.1+cu121 is outside >=2.9", "pip install 'torch>=2.9'"),
        ({"ray": "2.64.0"}, "ray 2.64.0 is outside <2.64,>=2.50", "pip install 'ray<2.64,>=2.50'"),
    ],
    ids=["base", "absent", "extra", "upper bound"],
)
def test_a_package_outside_its_declared_range_is_found_out(
    versions: dict[str, str | None], detail: str, mend: str, monkeypatch: Patch
) -> None:
    here = {name: version for name in packages._declared() if (version := packages.version(name))}
    assert packages.versions().state == "ok"
    installed(monkeypatch, {name: version for name, version in {**here, **versions}.items() if version})
    found = packages.versions()
    assert (found.state, found.detail, found.mend) == ("problem", detail, mend)


def test_a_package_that_fits_one_of_two_extras_is_within_range(monkeypatch: Patch) -> None:
    here = {name: version for name in packages._declared() if (version := packages.version(name))}
    assert len(packages._declared()["cuda-bindings"]) > 1
    for version, state in [("12.9.1", "ok"), ("13.1.0", "ok"), ("11.8.0", "problem")]:
        installed(monkeypatch, {**here, "cuda-bindings": version})
        assert packages.versions().state == state


@pytest.mark.parametrize(
    ("version", "ranges", "expected"),
    [
        ("2.10.0", ">=2.9", True),
        ("2.9", ">=2.9.0", True),
        ("2.9.0rc1", ">=2.9", True),
        ("3.9.18", ">=3.10", False),
        ("12.0", ">=10.12,<12", False),
        ("11.9.3", "<12,>=10.12", True),
        ("1.0", "", True),
        ("1.0", "~=2.0", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, ranges: str, expected: bool) -> None:
    assert fits(version, ranges) is expected


# --- the GPU


def with_torch(monkeypatch: Patch, *, cuda: str | None, devices: int, capability: tuple[int, int] = (8, 0)) -> None:
    """Act a driver and a torch."""
    monkeypatch.setattr(gpus.shutil, "which", lambda _name: "/usr/bin/nvidia-smi")
    acted = SimpleNamespace(
        __spec__=SimpleNamespace(name="torch"),
        __version__="2.14.1",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: devices > 0,
            get_device_capability=lambda _index: capability,
            get_device_properties=lambda _index: SimpleNamespace(name="A", major=capability[0], minor=capability[1]),
        ),
    )
    monkeypatch.setitem(sys.modules, "torch", acted)


def test_the_gpu_is_described(monkeypatch: Patch) -> None:
    with_torch(monkeypatch, cuda="13.0", devices=1)
    assert gpus.gpu() == [Finding("gpu", "ok", "A (sm_80, CUDA 13.0)")]


def test_a_gpu_before_ampere_is_told_what_follows(monkeypatch: Patch) -> None:
    with_torch(monkeypatch, cuda="13.0", devices=1, capability=(7, 5))
    _, found = gpus.gpu()
    assert (found.name, found.state, "older than Ampere" in found.detail) == ("bf16", "note", True)
    assert "--precision fp16" in found.mend


def test_a_torch_that_finds_no_device_is_found_out(monkeypatch: Patch) -> None:
    with_torch(monkeypatch, cuda="13.0", devices=0)
    (found,) = gpus.gpu()
    assert (found.state, "finds no device" in found.detail, "CUDA 13.0" in found.mend) == ("problem", True, True)


def test_a_torch_without_cuda_is_found_out_where_a_driver_is(monkeypatch: Patch) -> None:
    with_torch(monkeypatch, cuda=None, devices=0)
    (found,) = gpus.gpu()
    assert (found.state, "built without CUDA" in found.detail) == ("problem", True)
    assert "pip uninstall -y torch" in found.mend


def test_a_driver_without_torch_names_the_command(monkeypatch: Patch) -> None:
    monkeypatch.setattr(gpus.shutil, "which", lambda _name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(gpus.importlib.util, "find_spec", lambda _name: None)
    assert gpus.gpu()[0].mend == "pip install 'tinyres[train]'"


def test_the_gpu_for_engines_is_described_or_its_absence_explained(monkeypatch: Patch) -> None:
    monkeypatch.setattr(cuda, "bindings", Cuda)
    found = gpus.engines()
    assert (found.state, found.detail) == ("ok", "Acted GPU, compute capability 8.9, driver for CUDA 13.0")
    monkeypatch.setattr(cuda, "bindings", lambda: Cuda(driver=0))
    assert "no NVIDIA driver" in gpus.engines().detail


def test_a_driver_too_old_for_the_packages_is_found_out(monkeypatch: Patch) -> None:
    monkeypatch.setattr(gpus, "built_for", lambda: {"torch": "13.0", "onnxruntime-gpu": "12.8"})
    monkeypatch.setattr(gpus, "driver_version", lambda: "12.4")
    found = gpus.cuda()
    assert (found.state, "the driver is for CUDA 12.4, too old for torch" in found.detail) == ("problem", True)
    assert found.mend == "install an NVIDIA driver for CUDA 13, or builds of torch for CUDA 12"


def test_a_newer_minor_version_than_the_drivers_is_no_problem(monkeypatch: Patch) -> None:
    monkeypatch.setattr(gpus, "built_for", lambda: {"torch": "12.8"})
    monkeypatch.setattr(gpus, "driver_version", lambda: "12.4")
    assert gpus.cuda().state == "ok"


@pytest.mark.parametrize(("driver", "state"), [("13.0", "problem"), (None, "note")])
def test_packages_for_different_cuda_versions_are_found_out(driver: str | None, state: str, monkeypatch: Patch) -> None:
    built = {"torch": "13.0", "onnxruntime-gpu": "12.8", "tensorrt": "12", "cuda-bindings": "12.9"}
    monkeypatch.setattr(gpus, "built_for", lambda: built)
    monkeypatch.setattr(gpus, "driver_version", lambda: driver)
    found = gpus.cuda()
    assert (found.state, "packages for different versions: torch for 13.0" in found.detail) == (state, True)
    assert "a build of onnxruntime-gpu for CUDA 13" in found.mend
    assert "pip install tensorrt-cu13 and pip install 'cuda-bindings>=13,<14'" in found.mend


def test_what_a_package_was_built_for_is_read_from_its_files(monkeypatch: Patch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise SystemError('it was imported')")
    notes = "package_name = 'onnxruntime-gpu'\n__version__ = '1.31.1'\ncuda_version = '12.8'\n"
    (tmp_path / "onnxruntime" / "capi" / "build_and_package_info.py").write_text(notes)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemError('it was imported')")
    (tmp_path / "torch" / "version.py").write_text("debug = False\ncuda: Optional[str] = '13.0'\nhip = None\n")
    installed(
        monkeypatch,
        {"torch": "2.14", "onnxruntime-gpu": "1.31.1", "tensorrt-cu13": "10.15", "cuda-bindings": "13.5.0"},
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("torch", "onnxruntime"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    expected = {"torch": "13.0", "onnxruntime-gpu": "12.8", "tensorrt": "13", "cuda-bindings": "13.5"}
    assert gpus.built_for() == expected


def test_the_drivers_version_is_asked_of_its_library(monkeypatch: Patch) -> None:
    def get_version(number: object) -> int:
        number._obj.value = 12040  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(gpus.ctypes, "CDLL", lambda _name: SimpleNamespace(cuDriverGetVersion=get_version))
    assert gpus.driver_version() == "12.4"

    def absent(_name: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(gpus.ctypes, "CDLL", absent)
    assert gpus.driver_version() is None


# --- the disk


def test_a_disk_that_is_almost_full_is_found_out(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _place: Usage(10**12, 10**12, 10**6))
    found = named(doctor.examine(tmp_path / "not" / "yet"), "cache")
    assert (found.state, "976.6 KiB free" in found.detail) == ("problem", True)


@pytest.mark.parametrize(
    ("look", "name", "mend"),
    [
        (lambda folder: places.cache(folder)[0], "cache", "--cache or TINYRES_CACHE"),
        (places.runs, "runs", "--runs names another folder"),
    ],
    ids=["cache", "runs"],
)
def test_a_folder_that_cannot_be_written_is_found_out(
    look: Callable[[Path], Finding], name: str, mend: str, monkeypatch: Patch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert (look(tmp_path / "new").name, look(tmp_path / "new").state) == (name, "ok")
    assert look(tmp_path / "file").state == "problem"
    monkeypatch.setattr(places.os, "access", lambda _place, _mode: False)
    found = look(tmp_path / "new")
    assert (found.state, mend in found.mend) == ("problem", True)


def test_a_cache_on_a_network_file_system_is_found_out(monkeypatch: Patch, tmp_path: Path) -> None:
    assert places._file_system(Path("/proc")) == "proc"
    monkeypatch.setattr(places, "_file_system", lambda _folder: "nfs4")
    _, found = places.cache(tmp_path)
    assert (found.state, "network file system (nfs4)" in found.detail) == ("note", True)
    assert "TINYRES_CACHE" in found.mend


def test_an_unfinished_build_and_download_are_found_with_their_sizes(tmp_path: Path) -> None:
    (tmp_path / "folders-0123456789abcdef.partial").mkdir()
    (tmp_path / "folders-0123456789abcdef.partial" / "train.images.npy").write_bytes(bytes(3072))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "tiny-imagenet-200.zip.part").write_bytes(bytes(2048))
    download, build = sorted(places.leftovers(tmp_path, tmp_path / "runs"), key=lambda found: "build" in found.detail)
    assert (download.state, build.state) == ("note", "note")
    assert "tiny-imagenet-200.zip.part, 2.0 KiB: an unfinished download" in download.detail
    assert "3.0 KiB: an unfinished build" in build.detail
    assert build.mend == f"rm -r {tmp_path / 'folders-0123456789abcdef.partial'} begins anew"


def test_a_build_that_another_process_does_right_now_is_left_alone(tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "shapes-0123456789abcdef.partial").mkdir()
    with FileLock(tmp_path / ".shapes-0123456789abcdef.lock"):
        (found,) = places.leftovers(tmp_path, tmp_path / "runs")
    assert (found.state, found.mend, "in another process" in found.detail) == ("ok", "", True)


def test_a_cache_of_another_schema_is_found(tmp_path: Path) -> None:
    (tmp_path / "shapes-0123456789abcdef").mkdir()
    (tmp_path / "shapes-0123456789abcdef" / "manifest.json").write_text('{"schema": 0}')
    (found,) = places.leftovers(tmp_path, tmp_path / "runs")
    assert (found.state, "made by another version of tinyres" in found.detail) == ("note", True)
    assert found.mend == f"rm -r {tmp_path / 'shapes-0123456789abcdef'}"


def test_the_cache_of_data_that_is_gone_is_found_through_its_runs(trained: TrainedRun, tmp_path: Path) -> None:
    config = trained.started.config
    cache = Path(os.environ["TINYRES_CACHE"])
    mine = f"-{config.data_fingerprint[:16]},"
    assert not any(mine in found.detail for found in places.leftovers(cache, trained.runs))
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    moved = {"data": str(tmp_path / "gone"), "data_kind": config.data_kind, "data_fingerprint": config.data_fingerprint}
    (tmp_path / "runs" / "tiny" / "config.json").write_text(json.dumps(moved))
    (found,) = [found for found in places.leftovers(cache, tmp_path / "runs") if mine in found.detail]
    assert f"a cache of {tmp_path / 'gone'}, which is gone: no other pictures are left of runs" in found.detail
    assert found.mend.startswith("rm -r ")


def test_temporary_files_of_killed_processes_are_found_once_they_are_old(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine" / "export").mkdir(parents=True)
    left = tmp_path / "runs" / "mine" / "export" / ".fp32.part-0123abcd-7-x1.onnx"
    left.write_bytes(bytes(1024))
    assert places.leftovers(tmp_path / "cache", tmp_path / "runs") == [Finding("leftovers", "ok", "none")]
    os.utime(left, (1, 1))
    (found,) = places.leftovers(tmp_path / "cache", tmp_path / "runs")
    assert (found.state, found.detail) == ("note", "1 temporary file of killed processes, 1.0 KiB")
    assert found.mend == f"rm -r {left}"


def test_unreadable_records_are_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "shapes-0123456789abcdef").mkdir()
    (tmp_path / "shapes-0123456789abcdef" / "manifest.json").write_bytes(b"\xff[[[")
    (tmp_path / "runs" / "odd").mkdir(parents=True)
    (tmp_path / "runs" / "odd" / "config.json").write_text('["no", "object"]')
    (found,) = places.leftovers(tmp_path, tmp_path / "runs")
    assert "made by another version" in found.detail


def test_a_temporary_folder_is_one_leftover_and_old_once_all_in_it_is(tmp_path: Path) -> None:
    left = tmp_path / "runs" / "mine" / "export" / ".fp32.onnx.part-0123abcd-123-x1"
    left.mkdir(parents=True)
    inner = left / ".fp32.onnx.part-0123abcd-123-x2"
    inner.write_bytes(bytes(1024))
    os.utime(left, (1, 1))
    assert places.leftovers(tmp_path / "cache", tmp_path / "runs") == [Finding("leftovers", "ok", "none")]
    os.utime(inner, (1, 1))
    (found,) = places.leftovers(tmp_path / "cache", tmp_path / "runs")
    assert found.detail == "1 temporary folder of killed processes, 1.0 KiB"
    assert found.mend == f"rm -r {left}"


@pytest.mark.parametrize(
    "name", ["model.part-2.onnx", ".model.part-2.onnx", "a.part-0123abcd-7-b", ".fp32.part-x1.onnx"]
)
def test_a_file_of_the_users_is_no_leftover(name: str, tmp_path: Path) -> None:
    theirs = tmp_path / "runs" / "m" / "export" / name
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    os.utime(theirs, (1, 1))
    assert places.leftovers(tmp_path / "cache", tmp_path / "runs") == [Finding("leftovers", "ok", "none")]


def test_what_this_process_would_leave_is_known_by_its_name(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a\nb.onnx") as file, temporary_folder(tmp_path / "b") as folder:
        assert set(places._temporary(tmp_path)) == {file, folder}


def test_a_cache_whose_data_another_run_still_has_is_not_gone(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("gone", "pictures"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        config = {"data": str(tmp_path / name), "data_kind": "folders", "data_fingerprint": "f" * 64}
        (tmp_path / "runs" / name / "config.json").write_text(json.dumps(config))
    assert places._data_that_is_gone(tmp_path / "runs") == {}
    (tmp_path / "pictures").rmdir()
    assert list(places._data_that_is_gone(tmp_path / "runs")) == ["f" * 64]
