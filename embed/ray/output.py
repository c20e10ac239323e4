"""The folder of answers: its manifest, one Parquet file a part, and the list of failures.

A file here is whole or not there, for each is written under another name first. Nothing is ever appended to.
"""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from sources import UNREADABLE, Part

from tinyres.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ANSWER = pa.schema(
    [
        ("key", pa.string()),
        ("class_id", pa.string()),
        ("name", pa.string()),
        ("probability", pa.float64()),
        ("error", pa.string()),
    ]
)
COUNTS = ("images", "failed", "bytes_read")
"""In the metadata of each part's file."""
HELD_ROWS = 16_384
"""Answers that are held before they are written."""


@dataclass(frozen=True)
class Output:
    """A folder on any file system; workers get it pickled."""

    filesystem: fs.FileSystem
    folder: str

    def claim(self, place: str, job: dict[str, Any]) -> None:
        """Begin `job` here, or find it begun. Errors: UsageError if another was, or if other files are here."""
        manifest = f"{self.folder}/job.json"
        if self.filesystem.get_file_info(manifest).type == fs.FileType.NotFound:
            here = self.filesystem.get_file_info(fs.FileSelector(self.folder, allow_not_found=True))
            # A run that was killed as it began leaves no more than these.
            if any(info.base_name != "parts" and not info.base_name.startswith(".job.json.") for info in here):
                raise UsageError(f"{place} is not empty, and no job was begun in it", hint="name a new folder")
            self.filesystem.create_dir(f"{self.folder}/parts", recursive=True)
            self.write_text("job.json", json.dumps(job, indent=1) + "\n")
            return
        with self.filesystem.open_input_stream(manifest) as file:
            try:
                begun = dict(json.loads(file.read()))
            except (ValueError, TypeError) as exc:
                raise UsageError(f"{place}/job.json is damaged: {exc}", hint="name a new folder") from exc
        other = [f"{name} was {begun.get(name)!r}, is {now!r}" for name, now in job.items() if begun.get(name) != now]
        if other:
            raise UsageError(f"{place} holds another job: {'; '.join(other)}", hint="name a new folder")
        long_ago = datetime.now(timezone.utc) - timedelta(days=1)  # another run of the job may still be at work
        for info in self._part_files():
            if info.base_name.startswith(".") and info.mtime is not None and info.mtime < long_ago:
                self.filesystem.delete_file(info.path)  # of a worker that was killed

    def write_part(self, part: Part, answers: Iterable[tuple[int, dict[str, Any]]]) -> dict[str, int]:
        """Replace the part's file by `answers` (bytes read, row of `ANSWER`); what was counted."""
        counts = dict.fromkeys(COUNTS, 0)
        rows: list[dict[str, Any]] = []
        with self._replaced(f"parts/{part.name}.parquet") as file, pq.ParquetWriter(file, ANSWER) as writer:
            for size, answer in answers:
                counts["images"] += 1
                counts["failed"] += answer["error"] is not None
                counts["bytes_read"] += size
                rows.append(answer)
                if len(rows) == HELD_ROWS:
                    writer.write_table(pa.Table.from_pylist(rows, ANSWER))
                    rows.clear()
            writer.write_table(pa.Table.from_pylist(rows, ANSWER))
            writer.add_key_value_metadata({name: str(count) for name, count in counts.items()})
        return counts

    def read_counts(self, parts: list[Part]) -> dict[str, dict[str, int]]:
        """By name, the counts of each part that is complete; what cannot be read (a power cut) is as good as absent."""
        there = {info.base_name for info in self._part_files()}
        names = [part.name for part in parts if f"{part.name}.parquet" in there]
        with ThreadPoolExecutor(16) as pool:
            found = zip(names, pool.map(self._counts_of, names), strict=True)
            return {name: counts for name, counts in found if counts is not None}

    def write_failures(self, names: Iterable[str]) -> None:
        """List the pictures without an answer, of these parts, in failures.jsonl."""
        with self._replaced("failures.jsonl") as listing:
            for name in names:
                with self.filesystem.open_input_file(f"{self.folder}/parts/{name}.parquet") as file:
                    for rows in pq.ParquetFile(file).iter_batches(columns=["key", "error"]):
                        for row in rows.to_pylist():
                            if row["error"] is not None:
                                listing.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def write_text(self, name: str, text: str) -> None:
        """Replace a file."""
        with self._replaced(name) as file:
            file.write(text.encode())

    def bytes_written(self) -> int:
        """Of all parts."""
        return sum(info.size or 0 for info in self._part_files() if not info.base_name.startswith("."))

    @contextmanager
    def _replaced(self, name: str) -> Iterator[pa.NativeFile]:
        before, slash, base = name.rpartition("/")
        temporary = f"{self.folder}/{before}{slash}.{base}.{uuid.uuid4().hex}"
        with self.filesystem.open_output_stream(temporary) as file:
            yield file
        self.filesystem.move(temporary, f"{self.folder}/{name}")

    def _part_files(self) -> list[fs.FileInfo]:
        found: list[fs.FileInfo] = self.filesystem.get_file_info(
            fs.FileSelector(f"{self.folder}/parts", allow_not_found=True)
        )
        return found

    def _counts_of(self, name: str) -> dict[str, int] | None:
        try:
            with self.filesystem.open_input_file(f"{self.folder}/parts/{name}.parquet") as file:
                kept = pq.read_metadata(file).metadata
                return {count: int(kept[count.encode()]) for count in COUNTS}
        except (KeyError, *UNREADABLE):
            return None
