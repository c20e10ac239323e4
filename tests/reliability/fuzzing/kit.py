"""A small file of each kind, made by tinyres itself: what is damaged."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

from PIL import Image

SEED_HISTORY = "training_history.json"
ASSIGNMENTS = ("lr=0.02", "epochs=3", "widths=8,16,32,64", "blocks=[1, 1, 1, 1]", "schedule=cosine", "flip=off")
CONDITIONS = (
    "p50>5ms",
    "accuracy<0.60",
    "openvino*:p95@32>40ms",
    "slower-than-baseline",
    "memory > 1.5 GiB",
    "drop>1%",
)
ONNX = "fp32.onnx"


def make_kit(kit: Path) -> None:
    """Write all of it into the new folder `kit`."""
    import torch
    from seed_network import seed_network
    from tiny import TINY, write_pictures

    from tinyres.data import shapes
    from tinyres.data.dataset import open_dataset
    from tinyres.export.pipeline import export_onnx
    from tinyres.progress import Silent
    from tinyres.training import launch
    from tinyres.training.train import train

    (kit / "pictures").mkdir(parents=True)
    drawn = Image.fromarray(shapes.render("val", 0, 40))
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tif", "ppm"):
        drawn.save(kit / "pictures" / f"drawn.{suffix}")
    write_pictures(kit / "data" / "train", classes=3, each=8)
    write_pictures(kit / "data" / "val", classes=3, each=4, split="val")
    started = launch.new_run(str(kit / "data"), TINY, runs=kit / "runs", name="run", progress=Silent())
    train(started.run, started.config, started.dataset, progress=Silent())
    export_onnx(started.run.best, kit / "export" / ONNX, dataset=started.dataset, batches=(1, 2, 3), progress=Silent())
    shutil.copytree(started.run.path, kit / "run")
    (kit / "results").mkdir()
    shutil.copy(Path(__file__).parents[3] / "results" / "bench" / "demo" / "results.json", kit / "results")
    (kit / "seed").mkdir()
    network = seed_network(classes=4, blocks=(1, 1, 1, 1), widths=(2, 3, 4, 5))
    torch.save(network.state_dict(), kit / "seed" / "seed.pth")
    (kit / "seed" / "classes.txt").write_text("n1\tant\nn2\tbee, honey bee\nn3\tcat\nn4\n")
    shutil.copy(kit / "run" / SEED_HISTORY, kit / "seed")
    (kit / "zip").mkdir()
    with zipfile.ZipFile(kit / "zip" / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((kit / "data").rglob("*.png")):
            archive.write(path, path.relative_to(kit / "data"))
    _write_tree(kit / "data", kit / "tree" / "tiny")
    open_dataset(str(kit / "data"), image_size=16, cache_dir=kit / "made")
    (folder,) = (path.parent for path in (kit / "made").rglob("manifest.json"))
    shutil.copytree(folder, kit / "cache")
    _write_engine(kit / "export" / ONNX, kit / "engine")
    _write_texts(kit)


def _write_tree(pictures: Path, tree: Path) -> None:
    """The official layout of Tiny ImageNet, of the pictures in a plain one."""
    lines = []
    for index, path in enumerate(sorted((pictures / "train").rglob("*.png"))):
        ours = tree / "train" / f"n{index % 2:08}" / "images" / path.name
        ours.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, ours)
        if index < 6:
            (tree / "val" / "images").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tree / "val" / "images" / f"val_{index}.JPEG")
            lines.append(f"val_{index}.JPEG\tn{index % 2:08}\t0\t0\t9\t9\n")
    (tree / "val" / "val_annotations.txt").write_text("".join(lines))
    (tree / "words.txt").write_text("n00000000\tgoldfish, Carassius auratus\nn00000001\tnewt\nn00000002\tnothing\n")


def _write_engine(onnx: Path, home: Path) -> None:
    """An engine that is none, with the passport of one."""
    from tinyres.files import sha256_of
    from tinyres.runtime.metadata import read_artifact
    from tinyres.runtime.passport import BuildOptions, Passport, Sidecar, here

    home.mkdir()
    engine = home / "fp32.engine"
    engine.write_bytes(b"engine" * 100)
    options = BuildOptions((1, 2, 3), None, 3, version_compatible=True, hardware_compatible=True)
    metadata = read_artifact(onnx)[1]
    sums = (sha256_of(onnx), sha256_of(engine))
    passport = Passport("tensorrt", "10.13.2.6", "8.6", "A GPU", "13.0", here(), options, *sums, "layers", metadata)
    sidecar = json.dumps({**asdict(Sidecar(passport)), "grade": "full", "artifact_sha256": sums[1]}, indent=1)
    engine.with_name("fp32.engine.json").write_text(sidecar)


def _write_texts(kit: Path) -> None:
    """What people write by hand, a line each; and the names in an archive."""
    home = kit / "texts"
    shutil.copytree(kit / "pictures", home / "pictures")
    names = ["pictures", "pictures/drawn.png", "pictures/*.jpg", "absent.png", "./pictures/../pictures/drawn.gif"]
    tree = [f"train/{label}/{number}.png" for label in "ab" for number in range(4)] + ["val/a/0.png", "val/b/1.png"]
    texts = {"assignments": ASSIGNMENTS, "conditions": CONDITIONS, "names": names, "tree": tree}
    for name, lines in texts.items():
        (home / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (home / "lengths.txt").write_text("90\n90s\n20m\n1.5h\n1:32:256\n1,32\n")
