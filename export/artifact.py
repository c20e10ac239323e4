"""An artifact is published with its certificate, or set aside as rejected: nothing in between has its name.

It is written and proven in a folder of its own; only a proof moves it to where it was asked for.
"""

from __future__ import annotations

import html
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinyres import records
from tinyres.errors import BackendUnavailable, ProofError
from tinyres.export.certificate import Certificate, certificate_path
from tinyres.files import remove, storage_errors, sync_folder, temporary_folder, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tinyres.export.certificate import Level

_WORDS = {True: "passed", False: "FAILED", None: "not judged"}


@dataclass(frozen=True, slots=True)
class Exported:
    """A published artifact."""

    path: Path
    certificate: Certificate
    example: Path | None = None
    """The program that was asked for beside it."""

    @property
    def certificate_file(self) -> Path:
        """Where the certificate lies."""
        return certificate_path(self.path)

    def __repr__(self) -> str:
        grade = self.certificate.grade
        proven = "built, not proven on a device" if grade == "unproven" else f"proven ({grade})"
        return f"Exported({str(self.path)!r}: {proven})"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{levels_html(self.certificate.levels)}"


def levels_html(levels: Iterable[Level]) -> str:
    """A row a level, for notebooks."""
    rows = [(level.name, _WORDS[level.passed], level.detail) for level in levels]
    cells = ["".join(f'<td style="text-align: left">{html.escape(cell)}</td>' for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder beside `target` for its candidate; the folder is removed at the end."""
    with temporary_folder(target) as folder:
        yield folder / target.name


def settle(candidate: Path, target: Path, certificate: Certificate, *, reproduce: str) -> Exported:
    """Publish a judged candidate as `target`, or set it aside with `reproduce`, a script that shows the failure again.

    Errors: ProofError if a level failed, BackendUnavailable if it was the backend's; StorageError.
    """
    if certificate.grade == "rejected":
        folder = reject(candidate, target, certificate, reproduce=reproduce)
        failed = certificate.failed[0]
        kind = BackendUnavailable if failed.name == "backend" else ProofError
        where = f"; {certificate.diverges}" if certificate.diverges else ""
        raise kind(
            f"{target.name} failed the {failed.name} level: {failed.detail}{where}",
            hint=f"not published; the file, its report and reproduce.py are in {folder}",
        )
    publish(candidate, target, certificate)
    return Exported(target, certificate)


def publish(candidate: Path, target: Path, certificate: Certificate) -> None:
    """Move a proven candidate and all that was written beside it to `target`; the artifact itself comes last.

    If a move fails, what was there before is put back. A kill between them leaves an artifact and a certificate that
    do not know each other, which every reader says. Errors: StorageError.
    """
    records.save(certificate_path(candidate), certificate)
    with storage_errors(target):
        others = [path for path in sorted(candidate.parent.iterdir()) if path != candidate]
        _move_all([*others, candidate], target.parent)
        sync_folder(target.parent)
    remove(rejected_path(target))  # an earlier failure of the same artifact is settled


def _move_all(paths: list[Path], folder: Path) -> None:
    """Move files into `folder`, or none of them. Errors: OSError."""
    with tempfile.TemporaryDirectory(dir=paths[0].parent, prefix="before", ignore_cleanup_errors=True) as name:
        kept = Path(name)
        before = [path.name for path in paths if (folder / path.name).is_file()]
        for file in before:
            _link(folder / file, kept / file)
        moved: list[Path] = []
        try:
            for path in paths:
                path.replace(folder / path.name)
                moved.append(folder / path.name)
        except OSError:
            for path in moved:
                with suppress(OSError):  # what failed first is what to tell
                    if path.name in before:
                        (kept / path.name).replace(path)
                    else:
                        path.unlink()
            raise


def _link(path: Path, other: Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing."""
    try:
        other.hardlink_to(path)
    except OSError:
        shutil.copy(path, other)


def reject(candidate: Path, target: Path, certificate: Certificate, *, reproduce: str) -> Path:
    """Keep a candidate that failed in `<target>.rejected/`, with its report and a script. Errors: StorageError."""
    records.save(certificate_path(candidate), certificate)
    write_text(candidate.parent / "reproduce.py", reproduce)
    folder = rejected_path(target)
    remove(folder)
    with storage_errors(folder):
        candidate.parent.replace(folder)
        folder.chmod(0o755)
    return folder


def print_levels(levels: tuple[Level, ...]) -> int:
    """For the scripts that show a failure again: one line a level. Returns the exit code they amount to."""
    for level in levels:
        print(f"{level.name}: {_WORDS[level.passed]}: {level.detail}")
    return ProofError.exit_code if any(level.passed is False for level in levels) else 0


def promote(artifact: Path, certificate: Certificate) -> Path:
    """Give an artifact that was unproven its name, with its new certificate.

    The artifact itself moves once all else lies beside its new name; until then the old one is whole. Errors:
    StorageError.
    """
    target = artifact.with_name(certificate.artifact)
    records.save(certificate_path(target), certificate)
    beside = sorted(artifact.parent.glob(f"{artifact.name}.golden.*"))
    with storage_errors(target):
        for path in beside:
            shutil.copy(path, target.with_name(target.name + path.name.removeprefix(artifact.name)))
        artifact.replace(target)
        for path in (*beside, certificate_path(artifact)):
            path.unlink(missing_ok=True)
        sync_folder(target.parent)
    return target


def rejected_path(target: Path) -> Path:
    """Where a candidate for `target` goes if it fails."""
    return target.with_name(target.name + ".rejected")
