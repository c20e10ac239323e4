"""Against a real server on this machine that breaks off, ignores ranges or lies."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny import write_pictures

from tinyres import weights
from tinyres.data import download, tiny_imagenet
from tinyres.data.dataset import is_at_hand, open_dataset
from tinyres.data.download import Archive, fetch
from tinyres.errors import DataError
from tinyres.progress import Silent
from tinyres.runs import Run

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves CONTENT, unless told to misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.break_after: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []

    def archive(self, content: bytes = CONTENT) -> Archive:
        host, port = self.server_address[:2]
        return Archive(f"http://{host!s}:{port}/set.zip", len(content), hashlib.sha256(content).hexdigest())


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.break_after])

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.break_after = 400_000
    path = fetch(server.archive(), tmp_path / "set.zip", Silent())
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=400000-", "bytes=800000-"]


def test_a_later_call_goes_on_from_the_part_that_is_there(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip.part").write_bytes(CONTENT[:1000])
    assert fetch(server.archive(), tmp_path / "set.zip", Silent()).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_server_without_ranges_is_asked_for_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "set.zip.part").write_bytes(b"x" * 1000)
    assert fetch(server.archive(), tmp_path / "set.zip", Silent()).read_bytes() == CONTENT


def test_other_content_of_the_right_length_is_refused_and_not_kept(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(DataError, match="the official archive has 1,024,000 bytes"):
        fetch(server.archive(), tmp_path / "set.zip", Silent())
    assert not (tmp_path / "set.zip").exists()
    assert not (tmp_path / "set.zip.part").exists()


def test_a_server_that_never_stops_is_cut_off(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT * 3
    with pytest.raises(DataError, match="SHA-256"):
        fetch(server.archive(), tmp_path / "set.zip", Silent())


def test_a_server_that_always_breaks_off_at_once_ends_with_a_hint(server: Server, tmp_path: Path) -> None:
    server.break_after = 0
    with pytest.raises(DataError) as caught:
        fetch(server.archive(), tmp_path / "set.zip", Silent())
    assert caught.value.hint


def test_no_server_at_all_says_what_else_to_do(server: Server, tmp_path: Path) -> None:
    archive = server.archive()
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="cannot download http") as caught:
        fetch(archive, tmp_path / "set.zip", Silent())
    assert "--data FILE.zip" in str(caught.value.hint)


def test_an_archive_that_is_there_is_not_asked_for(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(b"whatever the user put there")
    fetch(server.archive(), tmp_path / "set.zip", Silent())
    assert server.asked == []


def test_the_official_archive_is_the_published_one() -> None:
    assert download.TINY_IMAGENET.size_bytes == 248_100_043
    assert download.TINY_IMAGENET.sha256 == "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"


def test_a_cache_of_the_official_pictures_is_taken_without_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "train", classes=2, each=3)
    images, lines = tmp_path / "val" / "images", []
    images.mkdir(parents=True)
    for name in ("circle", "ring"):
        shutil.copy(next((tmp_path / "train" / name).iterdir()), images / f"{name}.png")
        lines.append(f"{name}.png\t{name}\t0\t0\t1\t1")
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines))
    monkeypatch.setattr(download, "fetch", lambda *_: pytest.fail("downloads"))
    cache = tmp_path / "cache"
    assert not is_at_hand(cache)
    prepared = open_dataset(str(tmp_path), cache_dir=cache)
    assert prepared.manifest.kind == "tiny-imagenet"
    monkeypatch.setattr(tiny_imagenet, "FINGERPRINT", prepared.manifest.fingerprint)
    assert is_at_hand(cache)
    assert open_dataset("tiny-imagenet", cache_dir=cache).manifest == prepared.manifest


def test_the_official_pictures_are_those_that_the_shipped_weights_were_trained_on() -> None:
    assert Run(weights.HERE / "nano").config().data_fingerprint == tiny_imagenet.FINGERPRINT
