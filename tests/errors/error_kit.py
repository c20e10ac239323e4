"""A folder of small things that are right, and of others that are wrong, for commands that are meant to fail."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from seed_network import seed_network
from tiny import TrainedRun

from tinyres.export.artifact import Exported
from tinyres.seed.importing import import_seed


def make(folder: Path, trained: TrainedRun, exported: Exported, pictures: Path) -> Path:
    """Fill `folder` and return it; commands name what is in it relative to it."""
    _runs(folder, trained)
    _data(folder, pictures)
    _artifacts(folder, exported)
    _files(folder)
    _seeds(folder)
    return folder


def _runs(folder: Path, trained: TrainedRun) -> None:
    run = folder / "runs" / "tiny"
    shutil.copytree(trained.started.run.path, run)
    unsaved = folder / "runs" / "unsaved"
    unsaved.mkdir()
    for name in ("config.json", "env.json"):
        shutil.copy(run / name, unsaved)
    moved = folder / "runs" / "moved"  # a run whose data has changed
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("export"))
    config = json.loads((moved / "config.json").read_text(encoding="utf-8"))
    config |= {"name": "moved", "data_fingerprint": "0" * 64}
    (moved / "config.json").write_text(json.dumps(config), encoding="utf-8")
    lost = folder / "runs" / "lost"  # a run that learned nothing but NaN
    shutil.copytree(run, lost, ignore=shutil.ignore_patterns("export"))
    with safe_open(lost / "best.safetensors", "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in list(file.keys())}, file.metadata()
    tensors["fc.bias"] = tensors["fc.bias"] * float("nan")
    save_file(tensors, lost / "best.safetensors", metadata)


def _data(folder: Path, pictures: Path) -> None:
    shutil.copytree(pictures, folder / "photos")
    (folder / "empty").mkdir()
    shutil.copytree(pictures / "train" / "ring", folder / "one-class" / "ring")
    for name in ("train", "val"):
        for kind in ("ring", "star"):
            (folder / "hollow" / name / kind).mkdir(parents=True)
    for kind in ("ring", "star"):
        (folder / "broken" / "train" / kind).mkdir(parents=True)
        (folder / "broken" / "train" / kind / "1.png").write_bytes(b"no picture")
    (folder / "broken" / "val" / "ring").mkdir(parents=True)
    (folder / "broken" / "val" / "ring" / "1.png").write_bytes(b"no picture")
    shutil.copytree(pictures / "train", folder / "blind" / "train")
    shutil.copytree(folder / "broken" / "val", folder / "blind" / "val")
    shutil.copytree(pictures, folder / "strange-val")
    shutil.copytree(pictures / "val" / "ring", folder / "strange-val" / "val" / "rong")
    (folder / "cut.zip").write_bytes(b"PK\x03\x04 cut short")
    with zipfile.ZipFile(folder / "other-classes.zip", "w") as archive:
        for kind in ("cat", "dog"):
            for number in range(12):
                archive.write(pictures / "train" / "ring" / f"{3 * number + 1}.png", f"{kind}/{number}.png")


def _artifacts(folder: Path, exported: Exported) -> None:
    for beside in exported.path.parent.glob("fp32*"):
        for name in ("model", "changed", "ungolden", "torn", "regolden", "liar", "newer"):
            if beside.is_file():
                shutil.copy(beside, folder / beside.name.replace("fp32", name))
    (folder / "ungolden.onnx.golden.npz").unlink()
    (folder / "torn.onnx.golden.npz").write_bytes(b"PK\x03\x04 cut short")
    with np.load(folder / "regolden.onnx.golden.npz") as arrays:
        np.savez(folder / "regolden.onnx.golden.npz", **{name: arrays[name] for name in arrays.files[::-1]})
    for name, change in {"liar": {"batches": [9, 4, 1]}, "newer": {"schema": 99, "tinyres": "9.9"}}.items():
        certificate = folder / f"{name}.onnx.json"
        told = json.loads(certificate.read_text(encoding="utf-8"))
        certificate.write_text(json.dumps(told | change), encoding="utf-8")
    with (folder / "changed.onnx").open("ab") as file:
        file.write(b"\0" * 8)
    shutil.copy(exported.path, folder / "alone.onnx")
    (folder / "full" / "node").mkdir(parents=True)
    (folder / "taken" / "triton" / "models" / "tiny").mkdir(parents=True)
    (folder / "text.onnx").write_text("not a model", encoding="utf-8")
    (folder / "alone.engine").write_bytes(b"an engine")


def _files(folder: Path) -> None:
    (folder / "text.jpg").write_text("not a picture", encoding="utf-8")
    (folder / "names.txt").write_text("\n", encoding="utf-8")
    (folder / "long.txt").write_bytes(b"a" * 100_000)
    (folder / "two.txt").write_text("cat\ndog\n", encoding="utf-8")
    (folder / "latin1.txt").write_bytes(b"caf\xe9\n")
    (folder / "file").touch()
    (folder / "foreign.pth").write_bytes(b"not a state dict")
    torch.save({"epoch": 1}, folder / "no-tensors.pth")
    torch.save({"features.0.weight": torch.zeros(2)}, folder / "other-net.pth")
    (folder / "foreign.safetensors").write_bytes(b"not weights")
    save_file({"a": torch.zeros(2)}, folder / "no-header.safetensors")
    (folder / "old.json").write_text('{"schema": 1}', encoding="utf-8")
    (folder / "record.json").write_text('{"something": 1}', encoding="utf-8")
    (folder / "text.json").write_text("{not json", encoding="utf-8")
    content = io.BytesIO()
    np.savez(content, pictures=np.zeros(3))
    (folder / "odd.golden.npz").write_bytes(content.getvalue())


def _seeds(folder: Path) -> None:
    """Weights of the original project's form, small, and two that are not quite."""
    state = seed_network(classes=3).state_dict()
    torch.save(state, folder / "seed.pth")
    torch.save({name: value for name, value in state.items() if name != "linear.bias"}, folder / "short.pth")
    state["linear.weight"] = state["linear.weight"][:, :-1].clone()
    torch.save(state, folder / "odd.pth")
    history = {"train_loss": [1.0], "train_acc": [0.5], "val_loss": [1.0], "val_acc": [0.5], "lr": [0.1]}
    (folder / "seed.json").write_text(json.dumps(history), encoding="utf-8")
    import_seed(folder / "seed.pth", runs=folder / "runs", name="imported")
