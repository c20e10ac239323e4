"""embed/cpp: built as its README says, proven by the golden pictures, and asked what Python is asked."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elsewhere import BUILD, EMBED, PHOTOS, Ended, done, run
from PIL import Image

from tinyres.decode import pixels_from_bytes
from tinyres.runtime.backends import open_runner

SOURCE = EMBED / "cpp"
PACKAGES = {
    "g++": "g++",
    "cmake": "cmake",
    "pkg-config": "pkg-config",
    "/usr/include/turbojpeg.h": "libturbojpeg0-dev",
    "/usr/include/stb/stb_image.h": "libstb-dev",
    "/usr/include/nlohmann/json.hpp": "nlohmann-json3-dev",
    "/usr/include/httplib.h": "libcpp-httplib-dev",
}
"""What is needed, and Debian's package of it."""
Answers = Callable[[Path], list[tuple[str, float]]]


def build(name: str, *options: str) -> Path:
    """The folder of the programs, built with `options`."""
    if absent := _absent():
        if os.geteuid() == 0 and shutil.which("apt-get"):
            run("apt-get", "install", "-y", "-q", *absent)
        if absent := _absent():
            pytest.skip(f"building C++ needs {', '.join(absent)}")
    folder = BUILD / name
    done("cmake", "-S", SOURCE, "-B", folder, "-DCMAKE_CXX_FLAGS=-Werror", *options)
    done("cmake", "--build", folder, "-j2")
    return folder


def _absent() -> list[str]:
    return [package for place, package in PACKAGES.items() if not (shutil.which(place) or Path(place).is_file())]


@pytest.fixture(scope="module")
def programs() -> Path:
    libraries = Path(sysconfig.get_path("purelib"))
    if not (libraries / "openvino").is_dir():
        pytest.skip("OpenVINO is not installed: pip install openvino")
    return build("cpp-openvino", f"-DOpenVINO_DIR={libraries / 'openvino' / 'cmake'}")


def classify(programs: Path, *words: object) -> Ended:
    return run(programs / "classify", *words)


@dataclass(frozen=True)
class Server:
    """One that runs."""

    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def best(self, picture: Path) -> list[tuple[str, float]]:
        status, answer = self.ask("POST", "/classify", picture.read_bytes())
        assert status == 200, answer
        return [(guess["name"], guess["probability"]) for guess in answer["best"]]


@contextmanager
def serving(programs: Path, model: Path) -> Iterator[Server]:
    words = [str(programs / "serve"), str(model), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = re.fullmatch(rf"serving {model.name} on http://127\.0\.0\.1:(\d+)\n", line)
            assert found, line
            yield Server(process, int(found[1]))
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server(programs: Path, models: Path) -> Iterator[Server]:
    with serving(programs, models / "fp32.onnx") as running:
        yield running


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_golden_pictures_prove_a_file(programs: Path, models: Path, precision: str) -> None:
    ended = classify(programs, models / f"{precision}.onnx", "--verify")

    assert ended.code == 0, ended.err
    assert re.fullmatch(r"proven: 4 golden pictures, logits within \S+ of \S+\n", ended.out)


def test_the_golden_pictures_prove_int8(programs: Path, int8: Path) -> None:
    ended = classify(programs, int8, "--verify")

    assert ended.code == 0, ended.err


def beside(folder: Path, model: Path, golden: str) -> Path:
    """A copy of `model` with other golden pictures."""
    copy = folder / model.name
    shutil.copy(model, copy)
    copy.with_name(copy.name + ".golden.json").write_text(golden)
    return copy


def shift(golden: dict[str, Any]) -> None:
    golden["pictures"][2]["artifact_logits"][7] += 1


def flip(golden: dict[str, Any]) -> None:
    golden["pictures"][0]["label"] = golden["pictures"][1]["label"]


def swap_logits(golden: dict[str, Any]) -> None:
    first, second = golden["pictures"][:2]
    for key in ("artifact_logits", "label"):
        first[key], second[key] = second[key], first[key]


def change_a_pixel(golden: dict[str, Any]) -> None:
    pixels = bytearray(base64.b64decode(golden["pictures"][3]["pixels"]))
    pixels[-1] ^= 1
    golden["pictures"][3]["pixels"] = base64.b64encode(pixels).decode()


def put(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda golden: golden.update({key: value})


def put_logit(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda golden: golden["pictures"][1]["artifact_logits"].__setitem__(5, value)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (shift, 3),
        (flip, 3),
        (swap_logits, 3),
        (change_a_pixel, 3),
        (put_logit(float("nan")), 2),
        (put_logit(None), 2),
        (put_logit("0"), 2),
        (lambda golden: golden["pictures"][1]["artifact_logits"].pop(), 2),
        (put("limit", None), 2),
        (put("limit", 0), 2),
        (put("limit", float("nan")), 2),
        (put("schema", 1), 2),
        (put("pictures", []), 2),
        (put("pictures", [{}]), 2),
    ],
)
def test_damaged_golden_pictures_prove_nothing(
    programs: Path, models: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], None], code: int
) -> None:
    golden = json.loads((models / "fp32.onnx.golden.json").read_text())
    damage(golden)

    ended = classify(programs, beside(tmp_path, models / "fp32.onnx", json.dumps(golden)), "--verify")

    assert (ended.code, ended.out) == (code, "")
    assert re.fullmatch(r"error: [^\n]+\n", ended.err)


def test_golden_pictures_that_are_cut_short_or_absent_prove_nothing(
    programs: Path, models: Path, tmp_path: Path
) -> None:
    text = (models / "fp32.onnx.golden.json").read_text()
    model = beside(tmp_path, models / "fp32.onnx", text[: len(text) // 2])

    cut = classify(programs, model, "--verify")
    model.with_name(model.name + ".golden.json").unlink()
    absent = classify(programs, model, "--verify")

    assert (cut.code, absent.code) == (2, 2)
    assert "damaged" in cut.err
    assert "cannot read" in absent.err


def drawn(number: int, rng: np.random.Generator) -> bytes:
    """A PNG of noise of some size, mode and orientation."""
    modes = ("RGB", "L", "RGBA", "LA", "P", "1", "I;16")
    sizes = ((64, 64), (1, 1), (2, 500), (500, 2), (63, 65), (900, 700), (90, 400), (30, 66))
    width, height = sizes[number] if number < len(sizes) else rng.integers(1, 400, 2)
    mode = modes[number % len(modes)]
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (height, width), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = number % 9
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=turned)
    return buffer.getvalue()


def test_pixels_are_pillows_bit_for_bit(programs: Path, models: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    golden = json.loads((models / "fp32.onnx.golden.json").read_text())
    golden |= {"limit": 1e-3, "pictures": []}
    with open_runner(models / "fp32.onnx") as runner:
        for number in range(90):
            png = drawn(number, rng)
            pixels = pixels_from_bytes(png, runner.spec.preprocess)
            logits = runner(pixels[None])[0]
            picture = {"shape": pixels.shape, "artifact_logits": logits.tolist()}
            picture |= {"label": runner.spec.class_ids[int(logits.argmax())]}
            picture |= {"png": base64.b64encode(png).decode(), "pixels": base64.b64encode(pixels.tobytes()).decode()}
            golden["pictures"].append(picture)

    ended = classify(programs, beside(tmp_path, models / "fp32.onnx", json.dumps(golden)), "--verify")

    assert ended.code == 0, ended.err
    assert ended.out.startswith("proven: 90 golden pictures")


def predicted(model: Path, *pictures: Path) -> str:
    return done(Path(sys.executable).with_name("tinyres"), "predict", *pictures, "--model", model)


def test_pngs_print_what_tinyres_predict_prints(programs: Path, models: Path, tmp_path: Path) -> None:
    pictures = [tmp_path / f"{photo.stem}.png" for photo in PHOTOS]
    for photo, picture in zip(PHOTOS, pictures, strict=True):
        Image.open(photo).save(picture)

    ended = classify(programs, models / "fp32.onnx", *pictures)

    assert ended.code == 0, ended.err
    assert ended.out == predicted(models / "fp32.onnx", *pictures)


def test_jpegs_print_what_tinyres_predict_prints(programs: Path, models: Path) -> None:
    """Both decode with libjpeg-turbo, if not of the same version."""
    assert classify(programs, models / "fp32.onnx", *PHOTOS).out == predicted(models / "fp32.onnx", *PHOTOS)


def test_odd_pictures_are_answered_as_in_python(server: Server, odd_pictures: Path, python_answers: Answers) -> None:
    for picture in sorted(odd_pictures.iterdir()):
        ours, theirs = server.best(picture), python_answers(picture)
        assert ours[0][0] == theirs[0][0], picture.name
        assert ours[0][1] == pytest.approx(theirs[0][1], abs=1e-3), picture.name


def test_all_jpeg_orientations_are_undone(server: Server, python_answers: Answers, tmp_path: Path) -> None:
    photo = Image.open(PHOTOS[0]).convert("RGB")
    for orientation in range(1, 9):
        turned = Image.Exif()
        turned[0x0112] = orientation
        path = tmp_path / f"{orientation}.jpg"
        photo.save(path, exif=turned, quality=100, subsampling=0)

        ours, theirs = server.best(path), python_answers(path)

        assert ours[0][0] == theirs[0][0]
        assert ours[0][1] == pytest.approx(theirs[0][1], abs=1e-3)


def test_a_bad_picture_costs_only_itself(programs: Path, models: Path, bad_pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(PHOTOS[0].read_bytes()[:-2000])
    Image.open(PHOTOS[0]).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-2000])
    bad = [
        *sorted(bad_pictures.iterdir()),
        tmp_path / "cut.jpg",
        tmp_path / "cut.png",
        tmp_path,
        tmp_path / "absent.jpg",
    ]

    ended = classify(programs, models / "fp32.onnx", *bad, PHOTOS[0])

    assert ended.code == 2
    lines = ended.err.splitlines()
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"error: {path}: ")
    assert ended.out == classify(programs, models / "fp32.onnx", PHOTOS[0]).out


def test_models_that_cannot_be_used_are_refused(
    programs: Path, models: Path, foreign_model: Path, tmp_path: Path
) -> None:
    import onnx

    content = (models / "fp32.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.onnx").write_text("no model")
    tensor = onnx.load_model_from_string(content)
    for entry in tensor.metadata_props:
        entry.value = entry.value.replace('"input": "image"', '"input": "tensor"')
    onnx.save(tensor, tmp_path / "tensor.onnx")
    reasons = {
        foreign_model: "no tinyres metadata",
        tmp_path / "cut.onnx": "cut short",
        tmp_path / "text.onnx": "not an ONNX model",
        tmp_path / "tensor.onnx": "takes float tensors",
        tmp_path / "absent.onnx": "cannot read",
    }

    for path, reason in reasons.items():
        for words in (("classify", path, PHOTOS[0]), ("serve", path, "--port", "0")):
            ended = run(programs / str(words[0]), *words[1:])
            assert (ended.code, ended.out) == (2, ""), words
            assert re.fullmatch(rf"error: [^\n]*{reason}[^\n]*\n", ended.err), ended.err
            assert str(path) in ended.err


def test_wrong_words_are_answered_with_the_usage(programs: Path) -> None:
    for words in (("classify",), ("classify", "m.onnx"), ("classify", "m.onnx", "--verif"), ("serve",)):
        ended = run(programs / words[0], *words[1:])
        assert ended.code == 2
        assert ended.err.startswith(f"error: usage: {words[0]} MODEL")
    ended = run(programs / "serve", "m.onnx", "--port", "65536")
    assert (ended.code, ended.err) == (2, "error: the port is 65536; valid: 0 to 65535\n")


def test_requests_at_once_get_the_answers_of_classify(server: Server, programs: Path, models: Path) -> None:
    printed = classify(programs, models / "fp32.onnx", *PHOTOS).out
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(server.best, PHOTOS * 12))

    for photo, best in zip(PHOTOS * 12, found, strict=True):
        lines = [str(photo), *(f"  {probability:6.1%}  {name}" for name, probability in best)]
        assert "\n".join(lines) + "\n" in printed


def test_the_server_outlives_bad_bodies(server: Server, bad_pictures: Path) -> None:
    for picture in bad_pictures.iterdir():
        status, answer = server.ask("POST", "/classify", picture.read_bytes())
        assert (status, list(answer)) == (400, ["error"]), picture.name
    large = bytes(33 << 20)
    form = {"Content-Type": "multipart/form-data; boundary=x"}

    assert server.ask("POST", "/classify", large) == (413, {"error": "the picture has more than 32 MB"})
    assert server.ask("POST", "/classify", b"--x--", **form)[0] == 400
    assert server.ask("GET", "/health") == (200, {"status": "ok"})
    assert len(server.best(PHOTOS[0])) == 5


def test_a_body_that_grows_when_unpacked_is_refused(server: Server) -> None:
    headers = {"Content-Encoding": "gzip"}
    small, bomb = gzip.compress(PHOTOS[0].read_bytes()), gzip.compress(bytes(33 << 20))

    status, _ = server.ask("POST", "/classify", bomb, **headers)
    usual, _ = server.ask("POST", "/classify", small, **headers)

    # Where httplib was built without zlib, no packed body is read.
    assert (status, usual) in {(413, 200), (400, 400)}


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly(programs: Path, models: Path, ending: signal.Signals) -> None:
    with serving(programs, models / "fp32.onnx") as running:
        running.best(PHOTOS[0])
        running.process.send_signal(ending)

        assert running.process.wait(timeout=30) == 0


def test_a_port_that_is_taken_is_an_error(server: Server, programs: Path, models: Path) -> None:
    ended = run(programs / "serve", models / "fp32.onnx", "--port", server.port)

    assert (ended.code, ended.err) == (2, f"error: cannot listen on 127.0.0.1:{server.port}\n")


def onnxruntime_root() -> Path:
    """ONNX Runtime's headers, of Debian 13 whatever this system is, and its library, of npm."""
    home = BUILD / "onnxruntime"
    library = home / "node_modules/onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1"
    if not (home / "include").is_dir() or not (home / "lib").is_dir():
        if not all(map(shutil.which, ("apt-get", "dpkg-deb", "npm"))):
            pytest.skip("ONNX Runtime's headers and library come by apt-get and npm")
        for folder in ("lists/partial", "cache/archives/partial", "lib"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        (home / "sources.list").write_text("deb http://deb.debian.org/debian trixie main\n")
        places = {"State::lists": "lists", "Cache": "cache", "Etc::sourcelist": "sources.list"}
        options = [f"-oDir::{key}={home / place}" for key, place in places.items()]
        apt = ("apt-get", "-q", *options, "-oDir::Etc::sourceparts=/dev/null")
        fetched = [run(*apt, *words, cwd=home) for words in (("update",), ("download", "libonnxruntime-dev"))]
        npm = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", home)
        fetched.append(run(*npm, "onnxruntime-node@1.30.0"))
        if any(ended.code for ended in fetched):
            pytest.skip(f"ONNX Runtime cannot be fetched: {[ended.err[-200:] for ended in fetched if ended.code]}")
        done("dpkg-deb", "-x", next(home.glob("libonnxruntime-dev_*.deb")), home / "unpacked")
        shutil.copy(library, home / "lib" / library.name)
        (home / "lib" / "libonnxruntime.so").symlink_to(library.name)
        (home / "include").symlink_to(home / "unpacked/usr/include")
    return home


def test_onnxruntime_answers_too(models: Path, foreign_model: Path) -> None:
    programs = build("cpp-onnxruntime", "-DBACKEND=onnxruntime", f"-DONNXRUNTIME_ROOT={onnxruntime_root()}")

    for precision in ("fp32", "fp16"):
        ended = classify(programs, models / f"{precision}.onnx", "--verify")
        assert ended.code == 0, ended.err
    assert classify(programs, foreign_model, "--verify").code == 2
    with serving(programs, models / "fp32.onnx") as running, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(running.best, [PHOTOS[0]] * 12))
        assert all(best == found[0] for best in found)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["-DBACKEND=torch"], "BACKEND is torch; valid: openvino, onnxruntime, tensorrt"),
        (["-DCMAKE_DISABLE_FIND_PACKAGE_OpenVINO=ON"], "pip install openvino"),
        (["-DCMAKE_FIND_ROOT_PATH=/nowhere", "-DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY"], "apt-get install libstb-dev"),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(tmp_path: Path, options: list[str], wanted: str) -> None:
    if _absent():
        pytest.skip("cmake itself is missing")

    ended = run("cmake", "-S", SOURCE, "-B", tmp_path, *options)

    assert ended.code != 0
    assert wanted in " ".join(ended.err.split())
