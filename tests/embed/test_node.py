from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elsewhere import BUILD, EMBED, PHOTOS, REPOSITORY, Ended, done, run
from PIL import Image

from tinyres.decode import pixels_from_file
from tinyres.spec import Preprocess

Answers = Callable[[Path], list[tuple[str, float]]]
LABELS = json.loads((REPOSITORY / "weights" / "nano" / "config.json").read_text())["spec"]["class_ids"]


@pytest.fixture(scope="module")
def folder() -> Path:
    """The example as a user has it, with its packages."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("there is no Node here")
    home = BUILD / "node"
    home.mkdir(parents=True, exist_ok=True)
    for file in (EMBED / "node").iterdir():
        if file.is_file():
            shutil.copy(file, home / file.name)
    done("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", cwd=home)
    return home


@pytest.fixture(scope="module")
def classify(folder: Path) -> Callable[..., Ended]:
    return lambda *words: run("node", "classify.mjs", *words, cwd=folder)


def script(folder: Path, text: str, *words: object) -> str:
    """The output of a program of ours beside the example."""
    (folder / "asked.mjs").write_text(text)
    return done("node", "asked.mjs", *words, cwd=folder)


def answered(said: str) -> list[list[tuple[str, float]]]:
    """Names and probabilities as printed, picture by picture."""
    pictures: list[list[tuple[str, float]]] = []
    for line in said.splitlines():
        if line.startswith("  "):
            share, name = line.strip().split("%  ", 1)
            pictures[-1].append((name, float(share) / 100))
        else:
            pictures.append([])
    return pictures


def test_the_model_proves_itself_in_every_precision(classify: Callable[..., Ended], models: Path) -> None:
    for precision in ("fp32", "fp16"):
        ended = classify(models / f"{precision}.onnx", "--verify")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("proven: 4 golden pictures")


def test_int8_proves_itself(classify: Callable[..., Ended], int8: Path) -> None:
    assert classify(int8, "--verify").code == 0


def test_it_answers_as_python_does(classify: Callable[..., Ended], models: Path, python_answers: Answers) -> None:
    ended = classify(models / "fp32.onnx", *PHOTOS)
    assert ended.code == 0, ended.err
    for photo, found in zip(PHOTOS, answered(ended.out), strict=True):
        wanted = python_answers(photo)
        assert [name for name, _ in found] == [name for name, _ in wanted]
        assert [share for _, share in found] == pytest.approx([share for _, share in wanted], abs=0.001)


DECODE = """
import { readFile, writeFile } from 'node:fs/promises'
import { decode } from './classify.mjs'
const [out, ...names] = process.argv.slice(2)
const all = []
for (const name of names) all.push(await decode(await readFile(name), 64))
await writeFile(out, Buffer.concat(all))
"""


def test_pixels_are_those_of_python_bit_for_bit(folder: Path, odd_pictures: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(40):
        height, width = rng.integers(1, 300, 2)
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"noise{index}.png")
    names = [*sorted(odd_pictures.iterdir()), *sorted(tmp_path.glob("*.png"))]
    script(folder, DECODE, tmp_path / "pixels", *names)
    found = np.fromfile(tmp_path / "pixels", np.uint8).reshape(-1, 64, 64, 3)
    for name, pixels in zip(names, found, strict=True):
        wanted = pixels_from_file(name, Preprocess(image_size=64))
        if name.suffix == ".png":
            assert (pixels == wanted).all(), name
        else:  # decoders of JPEG may round otherwise
            assert np.abs(pixels.astype(int) - wanted).max() <= 2, name


def test_bad_pictures_are_named_and_cost_only_themselves(
    classify: Callable[..., Ended], models: Path, bad_pictures: Path
) -> None:
    bad = sorted(bad_pictures.iterdir())
    ended = classify(models / "fp32.onnx", *bad, PHOTOS[0], models / "missing.png")
    assert ended.code == 2
    assert len(answered(ended.out)) == 1
    lines = ended.err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [str(name) for name in (*bad, models / "missing.png")]
    assert not any("    at " in line for line in lines)  # no trace of the stack


def test_it_runs_through_a_link_to_its_folder(folder: Path, models: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    ended = run("node", tmp_path / "link" / "classify.mjs", models / "fp32.onnx", "--verify")
    assert ended.out.startswith("proven:")


def swap_best(picture: dict[str, Any]) -> None:
    """Another class leads, by far."""
    logits = picture["artifact_logits"]
    best, other = int(np.argmax(logits)), int(np.argmin(logits))
    logits[best], logits[other] = logits[other], logits[best]
    picture["label"] = LABELS[other]


def test_another_model_and_no_model_are_refused(
    classify: Callable[..., Ended], foreign_model: Path, tmp_path: Path
) -> None:
    ended = classify(foreign_model, PHOTOS[0])
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith("this model was not exported by tinyres\n")
    (tmp_path / "text.onnx").write_text("no model")
    assert classify(tmp_path / "text.onnx", PHOTOS[0]).err.endswith("this is not an ONNX model\n")
    missing = classify(tmp_path / "missing.onnx", "--verify")
    assert (missing.code, "no such file" in missing.err) == (2, True)
    assert classify().err.startswith("error: usage:")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda known: known["pictures"][2].update(label="n01443537"), "golden picture 2 is not that of its logits"),
        (lambda known: swap_best(known["pictures"][2]), "golden picture 2 is answered with"),
        (lambda known: known["pictures"][0]["artifact_logits"].__setitem__(7, -1e3), "logits differ by"),
        (lambda known: known["pictures"][0]["artifact_logits"].__setitem__(7, None), "logits differ by"),
        (lambda known: known["pictures"][1]["artifact_logits"].pop(), "of another model"),
        (lambda known: known["pictures"][1].update(png=known["pictures"][2]["png"]), "decoded to other pixels"),
        (lambda known: known.update(limit=None), "no golden vectors"),
        (lambda known: known.update(pictures=[]), "no golden vectors"),
        (lambda known: known.update(schema=1), "no golden vectors"),
    ],
)
def test_verify_fails_where_anything_differs(
    classify: Callable[..., Ended],
    models: Path,
    tmp_path: Path,
    harm: Callable[[dict[str, object]], object],
    reason: str,
) -> None:
    shutil.copy(models / "fp16.onnx", tmp_path / "fp16.onnx")
    known = json.loads((models / "fp32.onnx.golden.json").read_text())  # fp16's answers differ from them a little
    harm(known)
    (tmp_path / "fp16.onnx.golden.json").write_text(json.dumps(known))
    ended = classify(tmp_path / "fp16.onnx", "--verify")
    assert ended.code == 3
    assert reason in ended.err


BATCHES = """
import { readFile } from 'node:fs/promises'
import ort from 'onnxruntime-node'
import { Classifier } from './tinyres.mjs'
const model = await Classifier.load(ort, await readFile(process.argv[2]))
const pixels = Uint8Array.from({ length: 5 * 64 * 64 * 3 }, (_, at) => (at * 7919) % 256)
const together = await model.logits(pixels)
const one = 64 * 64 * 3
const starts = [0, 1, 2, 3, 4]
const apart = await Promise.all(starts.map((at) => model.logits(pixels.slice(at * one, (at + 1) * one))))
const worst = Math.max(...together.map((logit, at) => Math.abs(logit - apart.flatMap((row) => [...row])[at])))
const said = []
for (const bad of [new Uint8Array(7), new Uint8Array(0), new Float32Array(one), undefined])
  await model.logits(bad).catch((error) => said.push(error.constructor.name))
console.log(JSON.stringify({ worst, said, count: together.length }))
"""


def test_batches_and_calls_at_once_agree_and_bad_ones_are_type_errors(folder: Path, models: Path) -> None:
    said = json.loads(script(folder, BATCHES, models / "fp32.onnx"))
    assert said["count"] == 5 * 200
    assert said["worst"] < 1e-4
    assert said["said"] == ["TypeError"] * 4


def test_both_languages_of_the_web_share_one_file() -> None:
    assert (EMBED / "node" / "tinyres.mjs").read_bytes() == (EMBED / "browser" / "tinyres.mjs").read_bytes()
