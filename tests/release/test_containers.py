"""The Dockerfiles fit the repository. No image is built here: docs/install.md says what was tried."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from wheels import copy_source

from tinyres.export.triton import SERVER

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILES = {path.name.partition(".")[0]: path for path in sorted((REPOSITORY / "docker").glob("*.Dockerfile"))}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
INSTRUCTIONS = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction with its words, on one line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def named(path: Path, name: str) -> list[str]:
    return [rest for each, rest in instructions(path.read_text(encoding="utf-8")) if each == name]


def ignored(name: str, rules: list[str]) -> bool:
    """Whether a file is kept from the builder: the last rule that fits it, or a folder of it, decides."""
    answer = False
    parts = name.split("/")
    for rule in rules:
        pattern = rule.removeprefix("!")
        anywhere = pattern.startswith("**/")
        places = [
            "/".join(parts[start:end]) for end in range(1, len(parts) + 1) for start in range(end if anywhere else 1)
        ]
        if any(fnmatch.fnmatchcase(place, pattern.removeprefix("**/")) for place in places):
            answer = not rule.startswith("!")
    return answer


def rules() -> list[str]:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def sources(path: Path) -> list[str]:
    """What a Dockerfile copies from the repository."""
    return [word for rest in named(path, "COPY") if "--from=" not in rest for word in shlex.split(rest)[:-1]]


def test_there_is_an_image_for_a_cpu_and_one_for_a_gpu() -> None:
    assert {*FILES} == {"cpu", "gpu"}


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_a_dockerfile_reads_as_instructions(path: Path) -> None:
    assert {name for name, _ in instructions(path.read_text(encoding="utf-8"))} <= INSTRUCTIONS
    for name in ("ENTRYPOINT", "CMD"):  # without a shell, so that a signal reaches the program
        assert all(isinstance(json.loads(rest), list) for rest in named(path, name)), name


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_bases_are_pinned_and_the_same_in_every_stage(path: Path) -> None:
    bases = {rest.split(" AS ")[0] for rest in named(path, "FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"[a-z./]+:\d+\.\d+[\w.-]*", bases.pop())


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_what_is_copied_is_in_git_and_reaches_the_builder(path: Path) -> None:
    assert sources(path)
    for source in sources(path):
        assert (REPOSITORY / source).exists(), source
        assert not ignored(source, rules()), source


def test_nothing_else_reaches_the_builder(tmp_path: Path) -> None:
    copied = {source.split("/")[0] for path in FILES.values() for source in sources(path)}
    assert {rule.removeprefix("!") for rule in rules() if rule.startswith("!")} == copied
    for name in (".git/config", "tests/tiny.py", "results/README.md", "runs/nano/log", "data.zip", ".venv/bin/python"):
        assert ignored(name, rules()), name
    for name in ("bench/__pycache__/gate.pyc", "embed/node/node_modules/sharp/index.js"):
        assert ignored(name, rules()), name
    copy_source(tmp_path / "all")
    seen = sum(path.stat().st_size for path in (tmp_path / "all").rglob("*") if path.is_file())
    sent = sum(
        path.stat().st_size
        for path in (tmp_path / "all").rglob("*")
        if path.is_file() and not ignored(path.relative_to(tmp_path / "all").as_posix(), rules())
    )
    assert 5e6 < sent < min(8e6, seen)  # the weights of nano, and the sources


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_an_image_runs_as_nobody_in_particular_and_keeps_no_caches(path: Path) -> None:
    last = path.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE)
    for line in named(path, "RUN"):
        if "apt-get install" in line:
            assert "--no-install-recommends" in line
            assert line.endswith("rm -rf /var/lib/apt/lists/*")
        if "pip install" in line or "pip wheel" in line:
            assert "--no-cache-dir" in line
        if "pip install" in line:
            assert "--constraint" in line


def test_extras_and_packages_that_images_install_exist() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (asked,) = re.findall(r"\[([\w,-]+)\]\"", " ".join(named(FILES["gpu"], "RUN")))
    assert {*asked.split(",")} == {"gpu", "train", "trt"}
    assert {*asked.split(",")} <= {*extras}
    assert "cpu" not in asked  # its onnxruntime and gpu's own the same module
    (package,) = re.findall(r"constraints\.txt (\w+)$", " ".join(named(FILES["cpu"], "RUN")[1:2]))
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(rf"^{package}==", pins, re.MULTILINE)


def test_the_gpus_wheel_is_made_of_all_that_setuptools_asks_for() -> None:
    folders = {folder.split("/")[0] for folder in PROJECT["tool"]["setuptools"]["package-dir"].values()}
    wanted = {"tinyres", *folders, PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert {*sources(FILES["gpu"])} == {*wanted, "pyproject.toml", "MANIFEST.in", "constraints.txt"}
    for rest in named(FILES["gpu"], "COPY"):
        source, target = shlex.split(rest)[-2:]
        assert source in wanted | {"LICENSE", "constraints.txt", "/dist"}
        assert target in {source, "./", "/dist", "/dist/"}


def test_the_server_is_asked_where_it_listens_and_is_told_all_that_it_takes() -> None:
    text = FILES["cpu"].read_text(encoding="utf-8")
    (port,) = named(FILES["cpu"], "EXPOSE")
    (entry,) = named(FILES["cpu"], "ENTRYPOINT")
    assert json.loads(entry) == ["serve", "--host", "0.0.0.0", "--port", port]  # noqa: S104 - inside the container
    (health,) = named(FILES["cpu"], "HEALTHCHECK")
    asked = json.loads(health.partition("CMD ")[2])[-1]
    assert f"/dev/tcp/127.0.0.1/{port} " in asked
    server = (REPOSITORY / "embed" / "cpp" / "serve.cpp").read_text(encoding="utf-8")
    assert f'server.Get("{asked.split()[5]}"' in server
    assert all(f'"{word}"' in server for word in json.loads(entry) if word.startswith("--"))
    assert '"status", "ok"' in server
    assert all(
        f"add_executable({name} " in (REPOSITORY / "embed/cpp/CMakeLists.txt").read_text()
        for name in ("serve", "classify")
    )
    assert re.search(r"COPY --from=build /build/serve /build/classify ", text)


def test_the_page_names_the_images_and_the_container_that_triton_is() -> None:
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    for path in FILES.values():
        assert f"docker build -f docker/{path.name} " in page
        (base,) = {rest.split(" AS ")[0] for rest in named(path, "FROM")}
        assert f"`{base}`" in page
    assert f"`{SERVER}`" in page
    assert "have not been built" in page
