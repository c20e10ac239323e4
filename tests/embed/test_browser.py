"""The page in a real Chromium, driven by Playwright, in an environment of its own: the tests here ask that program."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elsewhere import BUILD, EMBED, PHOTOS, done, environment, run
from PIL import Image

Answers = Callable[[Path], list[tuple[str, float]]]
Visit = Callable[..., dict[str, Any]]

VISIT = '''
"""Open the page, give it each picture, and print what it shows as JSON: visit.py CHROMIUM URL WEBGPU PICTURE..."""
import json, sys
from playwright.sync_api import sync_playwright

chromium, url, webgpu, screenshot, *pictures = sys.argv[1:]
quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
software = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]
software += ["--use-vulkan=swiftshader"]
flags = ["--no-sandbox", *quiet, *camera, *(software if webgpu == "yes" else ["--disable-gpu"])]
settled = "document.getElementById('time').textContent || !document.getElementById('error').hidden"
said = {"console": [], "answers": []}
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=flags)
    page = browser.new_page(viewport={"width": 390, "height": 844}, device_scale_factor=2)
    page.on("pageerror", lambda error: said["console"].append(str(error)))
    page.goto(url)
    page.wait_for_selector("body[data-ready]", timeout=120_000)
    said |= {"ready": page.get_attribute("body", "data-ready"), "backend": page.get_attribute("body", "data-backend")}
    said |= {"about": page.inner_text("#about"), "error": page.inner_text("#error")}
    said["wide"] = page.evaluate("document.documentElement.scrollWidth")
    for picture in pictures:
        if picture == "camera":
            page.click("#switch")
        else:
            page.set_input_files("#file", picture)
        page.wait_for_function(settled, timeout=120_000)
        rows = [row.inner_text().split("\\n") for row in page.query_selector_all("#best li")]
        said["answers"].append({"best": rows, "time": page.inner_text("#time"), "error": page.inner_text("#error")})
        if picture == "camera":
            page.click("#switch")
            page.wait_for_function("document.getElementById('switch').textContent === 'Use the camera'")
        elif screenshot:
            page.wait_for_function("document.getElementById('shown').complete")
            page.screenshot(path=screenshot)
        if picture != pictures[-1]:  # the next answer is told from this one
            page.evaluate("for (const id of ['time', 'best']) document.getElementById(id).replaceChildren()")
            page.evaluate("document.getElementById('error').hidden = true")
    browser.close()
print(json.dumps(said))
'''


@pytest.fixture(scope="module")
def folder(models: Path) -> Path:
    """The example as `tinyres export --example browser` writes it, with its packages."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm here")
    home = BUILD / "browser"
    home.mkdir(parents=True, exist_ok=True)
    for file in (EMBED / "browser").iterdir():
        if file.is_file():
            shutil.copy(file, home / file.name)
    for precision in ("fp32", "fp16"):
        for name in (f"{precision}.onnx", f"{precision}.onnx.golden.json"):
            shutil.copy(models / name, home / name)
    done("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", cwd=home)
    return home


@pytest.fixture(scope="module")
def visit(folder: Path) -> Iterator[Visit]:
    """What the page shows, served as a user serves it: a folder of files."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here")
    binaries = environment("playwright", "playwright")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("localhost", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever).start()

    def ask(query: str, *pictures: object, webgpu: bool = False, screenshot: object = "") -> dict[str, Any]:
        url = f"http://localhost:{server.server_port}/index.html?{query}"
        words = (binaries / "python", "-c", VISIT, chromium, url, "yes" if webgpu else "no", screenshot, *pictures)
        ended = run(*words, timeout=280)
        assert ended.code == 0, ended.err[-3000:]
        said: dict[str, Any] = json.loads(ended.out)
        assert said["console"] == []
        return said

    yield ask
    server.shutdown()
    server.server_close()


def shares(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(name, float(share.removesuffix(" %")) / 100) for name, share in answer["best"]]


def test_the_page_proves_itself_and_answers_as_python_does(
    visit: Visit, python_answers: Answers, odd_pictures: Path, tmp_path: Path
) -> None:
    pictures = [*PHOTOS, *sorted(odd_pictures.iterdir())]
    said = visit("model=fp32.onnx", *pictures, screenshot=tmp_path / "page.png")
    assert (said["ready"], said["backend"], said["error"]) == ("yes", "wasm", "")
    assert "fp32.onnx, 9.7 MB in fp32, 200 classes, on WASM. Proven in this browser in" in said["about"]
    assert said["wide"] == 390  # nothing is cut off on a phone
    for picture, answer in zip(pictures, said["answers"], strict=True):
        assert answer["error"] == ""
        assert "ms to decode and resize" in answer["time"]
        wanted = python_answers(picture)
        close = 0.001 if picture.suffix == ".png" else 0.02  # decoders of JPEG may round otherwise
        assert shares(answer)[0][0] == wanted[0][0], picture
        assert [share for _, share in shares(answer)] == pytest.approx([share for _, share in wanted], abs=close), (
            picture
        )
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_bad_pictures_get_a_line_and_the_page_goes_on(visit: Visit, bad_pictures: Path, tmp_path: Path) -> None:
    Image.new("1", (12_000, 10_000)).save(tmp_path / "large.png")  # which Chromium itself would still take
    bad = [*sorted(bad_pictures.iterdir()), tmp_path / "large.png"]
    said = visit("model=fp16.onnx", *bad, PHOTOS[0])
    reasons = dict(zip([path.stem for path in bad], [answer["error"] for answer in said["answers"]], strict=False))
    unreadable = "this is not a picture that the browser can read"
    assert reasons.pop("large") == "the picture has 12000 x 10000 pixels; valid: up to 100 million"
    assert reasons == {"cut": unreadable, "empty": "the file is empty", "huge": unreadable, "text": unreadable}
    assert said["answers"][-1]["error"] == ""
    assert len(shares(said["answers"][-1])) == 5


def test_the_camera_is_watched_and_let_go(visit: Visit) -> None:
    said = visit("model=fp16.onnx", "camera", PHOTOS[0])
    camera, photo = said["answers"]
    assert len(camera["best"]) == len(photo["best"]) == 5
    assert camera["best"] != photo["best"]


def test_webgpu_proves_itself_where_chromium_acts_one(visit: Visit) -> None:
    said = visit("model=fp32.onnx&backend=webgpu", PHOTOS[0], webgpu=True)
    if said["ready"] == "no" and "adapter" in said["error"]:
        pytest.skip(f"this chromium acts no WebGPU: {said['error']}")
    assert said["ready"] == "yes", said["error"]
    assert said["backend"] == "webgpu"
    assert "on WebGPU. Proven in this browser in" in said["about"]
    assert len(said["answers"][0]["best"]) == 5


def test_int8_is_small_and_proves_itself(visit: Visit, int8: Path, folder: Path) -> None:
    for name in (int8.name, f"{int8.name}.golden.json"):
        shutil.copy(int8.with_name(name), folder / name)
    said = visit(f"model={int8.name}", PHOTOS[0])
    assert (said["ready"], said["backend"]) == ("yes", "wasm")
    assert "2.6 MB in int8" in said["about"]


def test_a_model_that_cannot_be_proven_classifies_nothing(visit: Visit, folder: Path, foreign_model: Path) -> None:
    known = json.loads((folder / "fp16.onnx.golden.json").read_text())
    known["pictures"][0]["artifact_logits"][3] += 5
    shutil.copy(folder / "fp16.onnx", folder / "off.onnx")
    (folder / "off.onnx.golden.json").write_text(json.dumps(known))
    shutil.copy(foreign_model, folder / "foreign.onnx")
    (folder / "text.onnx").write_text("no model")
    reasons = {
        "off.onnx": "WASM is not used: logits differ by",
        "foreign.onnx": "this model was not exported by tinyres",
        "text.onnx": "this is not an ONNX model",
        "missing.onnx": "missing.onnx is not there (404)",
    }
    for name, reason in reasons.items():
        said = visit(f"model={name}")
        assert (said["ready"], said["backend"]) == ("no", None)
        assert reason in said["error"]
