"""Python as a stranger has it: bare environments, without this checkout on the path."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from elsewhere import EMBED, PHOTOS, REPOSITORY, done, environment, run

Answers = Callable[[Path], list[tuple[str, float]]]


@pytest.fixture(scope="module")
def without_tinyres() -> Path:
    return environment("python", "onnxruntime", "numpy", "pillow") / "python"


@pytest.fixture(scope="module")
def with_tinyres() -> Path:
    """The base install and one backend, and nothing else."""
    return environment("tinyres", "-e", f"{REPOSITORY}[cpu]") / "python"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_program_beside_a_file_proves_itself_and_answers_alike(
    without_tinyres: Path, models: Path, python_answers: Answers, precision: str
) -> None:
    program = models / f"{precision}.onnx.py"
    assert run(without_tinyres, "-c", "import tinyres", cwd=models).code != 0
    assert done(without_tinyres, program, "--verify") == "proven\n"
    said = done(without_tinyres, program, *PHOTOS).splitlines()
    for photo, at in zip(PHOTOS, range(0, len(said), 6), strict=True):
        wanted = python_answers(photo)
        assert said[at] == str(photo)
        assert said[at + 1].split("%  ")[1] == wanted[0][0]
        if precision == "fp32":
            assert said[at + 1 : at + 6] == [f"  {share:6.1%}  {name}" for name, share in wanted]


def test_int8_proves_itself(without_tinyres: Path, int8: Path) -> None:
    assert done(without_tinyres, int8.with_name(int8.name + ".py"), "--verify") == "proven\n"


def test_the_readmes_program_runs_on_the_base_install(with_tinyres: Path, models: Path, tmp_path: Path) -> None:
    page = (EMBED / "python" / "README.md").read_text()
    program = page.partition("```python\n")[2].partition("```")[0]
    shutil.copy(models / "fp32.onnx", tmp_path / "fp32.onnx")
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "dog.jpg", "photos/a.jpg"):
        shutil.copy(PHOTOS[0], tmp_path / name)
    (tmp_path / "photos" / "broken.jpg").write_text("no picture")
    said = done(with_tinyres, "-c", program, cwd=tmp_path)
    assert "photos/broken.jpg is not a readable picture" in said
    assert done(with_tinyres.with_name("tinyres"), "verify", models / "fp32.onnx", "--quiet", cwd=tmp_path)


def test_a_server_of_its_own_answers_from_an_event_loop(with_tinyres: Path, models: Path) -> None:
    """What the README says of async, with more callers than threads."""
    program = textwrap.dedent("""
        import asyncio, json, sys
        from pathlib import Path
        from tinyres import Classifier, TinyresError

        async def main():
            body = Path(sys.argv[2]).read_bytes()
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0)

            with Classifier(sys.argv[1]) as classify:
                clock = asyncio.create_task(tick())
                calls = [asyncio.to_thread(classify, body) for _ in range(64)]
                answers = await asyncio.gather(*calls, asyncio.to_thread(classify, b"bad"), return_exceptions=True)
                clock.cancel()
            *good, bad = answers
            print(json.dumps([len({answer.label for answer in good}), isinstance(bad, TinyresError), ticks]))

        asyncio.run(main())
    """)
    labels, refused, ticks = json.loads(done(with_tinyres, "-c", program, models / "fp32.onnx", PHOTOS[0]))
    assert (labels, refused) == (1, True)
    assert ticks > 64  # the loop went on meanwhile
