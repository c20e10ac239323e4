"""Cut a picture set into parts that are the same at every run, and read the pictures of one part.

It does not decode pictures, and never holds more of a source than one picture, or a few Parquet rows, at a time.
"""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tinyres.errors import ImageError, InputError, UsageError
from tinyres.pictures import PICTURE_SUFFIXES, is_picture

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDINGS = {
    "folder": tuple(sorted(PICTURE_SUFFIXES)),
    "parquet": (".parquet",),
    "webdataset": (".tar", ".tar.gz", ".tgz"),
}
"""The kinds of source, and the files that belong to each; others in the same folder are passed over."""
# What a damaged file makes its reader raise: pyarrow, tarfile and the decompressors under it.
UNREADABLE = (OSError, EOFError, ValueError, pa.ArrowException, tarfile.TarError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Part:
    """What a worker answers as a whole: some picture files, one tar, or one row group of a Parquet file."""

    name: str
    paths: list[str]
    """Below the source's root."""
    row_group: int | None = None
    """None: the file as a whole."""


@dataclass(frozen=True)
class File:
    """A picture that is still to be read."""

    path: str


@dataclass(frozen=True)
class Source:
    """A picture set; workers get it pickled, and it reads from wherever its file system does."""

    filesystem: fs.FileSystem
    root: str
    kind: str
    """Of `ENDINGS`."""
    column: str | None = None
    """Of Parquet: holds the pictures' bytes. `image.bytes` is the field of a struct."""
    key: str | None = None
    """Of Parquet: names the pictures; None: by file and row."""

    def pictures(self, part: Part, batch: int) -> Iterator[tuple[str, object]]:
        """Each picture's key and its bytes, File, or ImageError; a file that breaks off is one under its own name."""
        try:
            if self.kind == "folder":
                yield from ((path, File(f"{self.root}/{path}")) for path in part.paths)
            elif self.kind == "webdataset":
                yield from self._from_tar(part.paths[0])
            else:
                yield from self._from_parquet(part.paths[0], part.row_group, batch)
        except UNREADABLE as exc:
            yield part.paths[0], ImageError(f"{part.paths[0]} cannot be read to its end: {exc}")

    def read(self, file: File) -> bytes:
        """Errors: OSError."""
        with self.filesystem.open_input_stream(file.path, compression=None) as stream:
            content: bytes = stream.read()
            return content

    def _from_tar(self, path: str) -> Iterator[tuple[str, object]]:
        with (
            self.filesystem.open_input_stream(f"{self.root}/{path}", compression=None) as file,
            tarfile.open(fileobj=file, mode="r|*", tarinfo=_WholeTar) as tar,
        ):
            for member in tar:
                if is_picture(member.name) and not member.isdir():
                    content = tar.extractfile(member) if member.isreg() else None
                    # What a link points at lies elsewhere in the tar, and a stream does not go back.
                    yield f"{path}#{member.name}", content.read() if content else ImageError("it is a link in a tar")
                tar.members.clear()  # tarfile would remember the header of every picture it has passed

    def _from_parquet(self, path: str, group: int | None, batch: int) -> Iterator[tuple[str, object]]:
        with self.filesystem.open_input_file(f"{self.root}/{path}") as file:
            # With a buffer, pages are read as they are needed; pyarrow's default is the whole row group at once.
            parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
            wanted = [name for name in (self.column, self.key) if name is not None]
            whole = wanted[0] in parquet.schema_arrow.names
            field, _, within = (wanted[0], "", "") if whole else wanted[0].partition(".")
            if missing := {field, *wanted[1:]} - set(parquet.schema_arrow.names):
                raise ValueError(f"it has no column {missing.pop()!r}, but {', '.join(parquet.schema_arrow.names)}")
            groups = range(parquet.num_row_groups) if group is None else [group]
            starts = list(accumulate((parquet.metadata.row_group(i).num_rows for i in groups), initial=0))
            row = starts[0] if group is None else sum(parquet.metadata.row_group(i).num_rows for i in range(group))
            for rows in parquet.iter_batches(batch, row_groups=list(groups), columns=wanted, use_threads=False):
                for item in rows.to_pylist():
                    content = item[field]
                    name = None if self.key is None else item[self.key]
                    picture = content.get(within or "bytes") if isinstance(content, dict) else content
                    # A File here would be a path that the data chose.
                    good = picture if isinstance(picture, bytes) else ImageError("there are no bytes of a picture")
                    yield f"{path}#{row}" if name is None else str(name), good
                    row += 1


class _WholeTar(tarfile.TarInfo):
    """tarfile takes a missing or damaged header for the end of an archive; here only the end mark is one."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as exc:
            raise tarfile.ReadError(f"{exc} at byte {tarfile_.offset}") from exc


def open_place(place: str) -> tuple[fs.FileSystem, str]:
    """A file system and the path in it, of an absolute path or a URI such as s3://bucket/folder."""
    filesystem, path = fs.FileSystem.from_uri(place) if "://" in place else (fs.LocalFileSystem(), place)
    return filesystem, path.rstrip("/")


def cut_source(
    place: str, *, kind: str | None, column: str | None, key: str | None, part_images: int
) -> tuple[Source, list[Part], str]:
    """The source, its parts, and a fingerprint that changes with them. Errors: InputError, UsageError."""
    filesystem, root = open_place(place)
    found = filesystem.get_file_info(root)
    if found.type == fs.FileType.NotFound:
        raise InputError(f"there is no {place}")
    single = found.type == fs.FileType.File
    infos = [found] if single else filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    root = root.rpartition("/")[0] if single else root
    sizes = {info.path[len(root) + 1 :]: info.size for info in infos if info.type == fs.FileType.File}
    kind, paths = _choose_kind(place, kind, sorted(sizes))
    digest = hashlib.sha256("".join(f"{path}\0{sizes[path]}\n" for path in paths).encode())
    if kind != "parquet":
        step = part_images if kind == "folder" else 1
        parts = [Part(_name(at // step), paths[at : at + step]) for at in range(0, len(paths), step)]
        return Source(filesystem, root, kind), parts, digest.hexdigest()
    with ThreadPoolExecutor(16) as pool:
        heads = list(pool.map(lambda path: _read_head(filesystem, f"{root}/{path}"), paths))
    column, key = _choose_columns(next((head[1] for head in heads if head), None), column, key)
    pieces = [
        (path, group) for path, head in zip(paths, heads, strict=True) for group in (range(head[0]) if head else [None])
    ]
    digest.update(repr(pieces).encode())
    parts = [Part(_name(number), [path], group) for number, (path, group) in enumerate(pieces)]
    return Source(filesystem, root, kind, column, key), parts, digest.hexdigest()


def _name(number: int) -> str:
    return f"part-{number:07}"


def _choose_kind(place: str, kind: str | None, paths: list[str]) -> tuple[str, list[str]]:
    # `.` and `_` begin the names of what other programs leave: ._photo.jpg, _SUCCESS, _temporary.
    seen = [path for path in paths if not path.rpartition("/")[2].startswith((".", "_"))]
    by_kind = {name: [path for path in seen if path.lower().endswith(ends)] for name, ends in ENDINGS.items()}
    held = [name for name, of_kind in by_kind.items() if of_kind]
    if kind is None and len(held) > 1:
        raise UsageError(f"{place} holds files of {' and '.join(held)}", hint=f"name one: --kind {held[-1]}")
    kind = kind or (held[0] if held else None)
    if kind is None or not by_kind[kind]:
        valid = ", ".join(ENDINGS[kind] if kind else (*sorted(PICTURE_SUFFIXES), ".parquet", ".tar"))
        raise InputError(f"there is nothing to classify in {place}", hint=f"valid: {valid}")
    return kind, by_kind[kind]


def _read_head(filesystem: fs.FileSystem, path: str) -> tuple[int, pa.Schema] | None:
    """Row groups and schema; None for a file that is damaged, which its worker will list as a failure.

    Errors: OSError for one that cannot be reached now: taken for damaged, it would make this another source.
    """
    with filesystem.open_input_file(path) as file:
        try:
            parquet = pq.ParquetFile(file)
            return parquet.num_row_groups, parquet.schema_arrow
        except (ValueError, pa.ArrowException):
            return None


def _choose_columns(schema: pa.Schema | None, column: str | None, key: str | None) -> tuple[str, str | None]:
    if schema is None:  # no file can be read; each will say so
        return column or "bytes", key
    top = column and (column if column in schema.names else column.partition(".")[0])
    for name, found in ((column, top), (key, key)):
        if name and found not in schema.names:
            raise UsageError(f"the Parquet files have no column {name!r}", hint=f"valid: {', '.join(schema.names)}")
    for field in schema:
        if column is None and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)):
            column = field.name
        elif column is None and pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            column = f"{field.name}.bytes"  # as Hugging Face's datasets keep pictures
    if column is None:
        raise InputError(f"no column of the Parquet files holds bytes: {', '.join(schema.names)}", hint="--column NAME")
    return column, key
