"""What the command line shows: results on stdout, everything else on stderr; a live bar on a terminal, lines elsewhere.

It decides nothing: it draws what it is given, and turns errors into one line, a hint and an exit code.
"""

from __future__ import annotations

import re
import shlex
import sys
import time
from contextlib import contextmanager, suppress
from json import dumps
from typing import TYPE_CHECKING, TextIO

from tinyres import records
from tinyres.errors import EXIT_INTERRUPTED, StorageError, TinyresError
from tinyres.files import storage_errors
from tinyres.harmless import shown_lines
from tinyres.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.progress import Progress as RichProgress

    from tinyres.progress import Task

PLAIN_LINE_EVERY_S = 10.0


class Console:
    """One command's voice. It is a `tinyres.progress.Progress`."""

    def __init__(self, *, json: bool = False, quiet: bool = False, debug: bool = False) -> None:
        self.json, self.quiet, self.debug = json, quiet, debug
        self._answers = True
        self._advises = not quiet
        self._bar: RichProgress | None = None
        self._logs: list[TextIO] = []
        self._warns = True
        self._voice = ""

    def speak_as(self, rank: int) -> None:
        """Of several processes that do the same, only the first speaks; the others only if they fail."""
        if rank > 0:
            self.quiet, self._warns, self._answers, self._voice = True, False, False, f"[process {rank}] "

    def result(self, data: object, text: str, *next_steps: str) -> None:
        """The command's answer: `data` as JSON with --json, else `text` and what one may type next."""
        if not self._answers:
            return
        advice = next_lines(*next_steps) if self._advises else []
        _answer(records.to_json(data) if self.json else "\n".join([text, *advice]))

    def line(self, data: object) -> None:
        """One of many answers, as a line of JSON."""
        _answer(records.to_json(data, indent=None))

    @contextmanager
    def steps(self) -> Iterator[None]:
        """Within, results are steps to a larger answer: shown to people, left out of the one JSON text."""
        self._answers, self._advises = not self.json, False
        try:
            yield
        finally:
            self._answers, self._advises = True, not self.quiet

    def advise(self, *next_steps: str) -> None:
        """What one may type next, where the answers themselves take no further line."""
        if self._advises and not self.json:
            for line in next_lines(*next_steps):
                self.log(line)

    def log(self, text: str) -> None:
        """A line on what is going on; silenced by --quiet."""
        self._write(text, shown=not self.quiet)

    def warn(self, text: str) -> None:
        """A line that --quiet does not silence."""
        self._write(f"warning: {_one_line(text)}", shown=self._warns)

    def _write(self, text: str, *, shown: bool) -> None:
        text = shown_lines(text)
        for log in self._logs:
            with suppress(OSError):  # a full disk is told of where it costs more than a line of the log
                log.write(text + "\n")
                log.flush()
        if not shown:
            return
        text = self._voice + text
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def _write_json(self, kind: str, message: str, hint: str | None, exit_code: int) -> None:
        told = {"error": kind, "message": message, "hint": hint, "exit_code": exit_code}
        print(dumps(told), file=sys.stderr, flush=True)  # in ASCII: stderr may take nothing else

    @contextmanager
    def copied_to(self, path: Path) -> Iterator[None]:
        """Write every line to the file `path` too."""
        with storage_errors(path):
            file = path.open("a", encoding="utf-8", newline="\n")  # closed below: on a full disk that fails too
        self._logs.append(file)
        try:
            yield
        finally:
            self._logs.remove(file)
            with suppress(OSError):
                file.close()

    @contextmanager
    def task(self, name: str, total: int, unit: str, *, done: int = 0) -> Iterator[Task]:
        """Show how far a piece of work is."""
        if total == 0 or self.quiet:
            yield _Unseen()
        elif not sys.stderr.isatty():
            yield _PlainTask(self, name, total, unit, done)
        elif self._bar is not None:
            yield _BarTask(self._bar, name, total, done)
        else:
            with _live_bar() as bar:
                self._bar = bar
                try:
                    yield _BarTask(bar, name, total, done)
                finally:
                    self._bar = None

    def fail(self, error: TinyresError) -> int:
        """Show an error and its hint, with --json as one line of JSON; return the exit code."""
        if self.json:
            self._write_json(type(error).__name__, str(error), error.hint, error.exit_code)
            return error.exit_code
        self._write(f"error: {_one_line(str(error))}", shown=True)
        if error.hint:
            self._write(f"hint: {_one_line(error.hint)}", shown=True)
        return error.exit_code

    def interrupted(self) -> int:
        """Say that the user stopped it; return the exit code."""
        if self.json:
            self._write_json("Interrupted", "interrupted", None, EXIT_INTERRUPTED)
            return EXIT_INTERRUPTED
        self._write("interrupted", shown=True)
        return EXIT_INTERRUPTED


def shell_line(*words: object) -> str:
    """A command of ours as it can be pasted into a shell."""
    return f"tinyres {shlex.join(map(str, words))}"


def next_lines(*steps: str) -> list[str]:
    """How every command says what may come next; one step a line."""
    return [f"{'     ' if number else 'next:'} {step}" for number, step in enumerate(steps)]


def _one_line(text: str) -> str:
    """Whatever a file is called, it adds no line that could be taken for one of ours."""
    return text.replace("\n", "\\n")


def _encodable(text: str, encoding: str) -> str:
    """`text` with what `encoding` has not spelled out as JSON spells it, which answers may be; file names, say."""

    def spelled(found: re.Match[str]) -> str:
        try:
            found[0].encode(encoding)
        except UnicodeEncodeError:
            return dumps(found[0])[1:-1]
        return found[0]

    return re.sub(r"[^\x00-\x7f]", spelled, text)


def _answer(text: str) -> None:
    text = _encodable(shown_lines(text), sys.stdout.encoding or "utf-8")
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise StorageError(f"cannot write the answer to stdout: {exc.strerror or exc}") from exc


def _live_bar() -> RichProgress:
    from rich import progress as rich_progress
    from rich.console import Console as RichConsole

    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=20),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.fields[left]}"),
        rich_progress.TextColumn("{task.fields[note]}", markup=False),
        console=RichConsole(stderr=True),
        transient=True,
    )


class _Unseen:
    def advance(self, count: int = 1, note: str = "", left_s: float | None = None) -> None:
        """Show nothing."""


class _Rest:
    """How long the rest of some work takes: as it is told, else by the units done so far."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self._before = total, done, done
        self._started = time.monotonic()
        self._told: tuple[float, float] | None = None

    def add(self, count: int, left_s: float | None) -> None:
        self.done += count
        if left_s is not None:
            self._told = (time.monotonic(), left_s)

    def seconds(self) -> float:
        now = time.monotonic()
        if self._told is not None:
            when, left = self._told
            return max(0.0, left - (now - when))
        return (self.total - self.done) * (now - self._started) / max(self.done - self._before, 1)


class _BarTask:
    def __init__(self, bar: RichProgress, name: str, total: int, done: int) -> None:
        self._bar, self._task = bar, bar.add_task(name, total=total, completed=done, note="", left="")
        self._rest = _Rest(total, done)

    def advance(self, count: int = 1, note: str = "", left_s: float | None = None) -> None:
        """Move the bar."""
        self._rest.add(count, left_s)
        if note:
            self._bar.update(self._task, note=note)
        self._bar.update(self._task, advance=count, left=f"{duration(self._rest.seconds())} left")


class _PlainTask:
    """A line now and then, for logs and pipes."""

    def __init__(self, console: Console, name: str, total: int, unit: str, done: int) -> None:
        self._console, self._name, self._unit = console, name, unit
        self._rest = _Rest(total, done)
        self._said = time.monotonic()
        self._note = ""

    def advance(self, count: int = 1, note: str = "", left_s: float | None = None) -> None:
        """Count, and say so if the last line is a while ago."""
        now = time.monotonic()
        rest = self._rest
        rest.add(count, left_s)
        self._note = note or self._note
        if now - self._said >= PLAIN_LINE_EVERY_S:
            self._said = now
            note = f", {self._note}" if self._note else ""
            where = f"{self._name}: {rest.done:,}/{rest.total:,} {self._unit}"
            self._console.log(f"{where}{note}, {duration(rest.seconds())} left")
