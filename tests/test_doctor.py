from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from acted_cuda import Cuda

from tinyres import doctor
from tinyres.runtime import cuda


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def named(findings: list[doctor.Finding], name: str) -> doctor.Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


def test_a_healthy_machine_has_no_problem(tmp_path: Path) -> None:
    findings = doctor.examine(tmp_path)
    assert [found.name for found in findings if found.state == "problem"] == []
    assert "onnxruntime" in named(findings, "onnxruntime-cpu").detail
    assert "FIX" not in doctor.describe(findings)


def test_both_onnxruntime_packages_are_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0")
    found = named(doctor.examine(tmp_path), "onnxruntime packages")
    assert (found.state, found.mend != "") == ("problem", True)


def test_a_disk_that_is_almost_full_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _place: Usage(10**12, 10**12, 10**6))
    found = named(doctor.examine(tmp_path / "not" / "yet"), "cache")
    assert (found.state, "976.6 KiB free" in found.detail) == ("problem", True)


def test_a_missing_library_names_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    findings = doctor.examine(tmp_path)
    assert named(findings, "pytorch").mend == "pip install 'tinyres[train]'"
    assert "torch" in named(findings, "training and export").detail


def test_the_gpu_for_engines_is_described_or_its_absence_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cuda, "bindings", Cuda)
    found = named(doctor.examine(tmp_path), "gpu for engines")
    assert (found.state, found.detail) == ("ok", "Acted GPU, compute capability 8.9, driver for CUDA 13.0")
    monkeypatch.setattr(cuda, "bindings", lambda: Cuda(driver=0))
    assert "no NVIDIA driver" in named(doctor.examine(tmp_path), "gpu for engines").detail


def test_onnxruntimes_gpu_package_replaces_the_other(tmp_path: Path) -> None:
    found = named(doctor.examine(tmp_path), "onnxruntime-cuda")
    assert found.mend.startswith("pip uninstall -y onnxruntime")
