"""Records a session of real commands in a terminal of 80 columns: docs/pictures/terminal.svg.

    python tests/release/terminal.py

The commands run in a folder of their own, on a pseudo-terminal, so that what they show is what people see; what was
overwritten and erased on the way (bars that ran) is not in the picture. Linux and macOS.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from fcntl import ioctl
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.text import Text

REPOSITORY = Path(__file__).resolve().parents[2]
PICTURE = REPOSITORY / "docs" / "pictures" / "terminal.svg"
COLUMNS, ROWS = 80, 50
SESSION = (
    "tinyres predict cat.jpg --model nano --top 3",
    "tinyres export nano",
    "tinyres verify runs/nano/export/fp32.onnx",
    "tinyres info runs/nano/export/fp32.onnx",
)
_CODES = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def run_in_terminal(words: list[str], folder: Path) -> str:
    """All that a command writes to a terminal, codes and all. Errors: CalledProcessError if it fails."""
    ours, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment |= {"TERM": "xterm-256color", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(words, stdin=its, stdout=its, stderr=its, cwd=folder, env=environment)
    os.close(its)
    content = bytearray()
    while True:
        try:
            block = os.read(ours, 65_536)
        except OSError:  # how Linux says that the other side was closed
            break
        if not block:
            break
        content += block
    os.close(ours)
    if code := process.wait():
        raise subprocess.CalledProcessError(code, words, content.decode())
    return content.decode()


def screen(written: str) -> list[str]:
    """The lines that are there at the end, with their colours, of a terminal of any height; a cell a character."""
    lines: list[list[str]] = [[]]
    row = column = 0
    style = ""
    for parameters, code, control, text in _CODES.findall(written):
        count = int(parameters) if parameters.isdigit() else 1
        if control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [[] for _ in range(row + 1 - len(lines))]
        elif code == "A":
            row = max(0, row - count)
        elif code == "K":
            del lines[row][0 if parameters == "2" else column :]
        elif code == "m":
            style = f"\x1b[{parameters}m"
        for letter in text:
            if column == COLUMNS:
                row, column = row + 1, 0
                lines += [[] for _ in range(row + 1 - len(lines))]
            cells = lines[row]
            cells += [" "] * (column + 1 - len(cells))
            cells[column] = f"{style}{letter}" if style not in ("", "\x1b[0m") else letter
            column += 1
    shown = ["".join(f"{cell}\x1b[0m" if "\x1b" in cell else cell for cell in cells).rstrip() for cells in lines]
    while shown and not shown[-1]:
        shown.pop()
    return shown


def drawn(session: dict[str, list[str]]) -> str:
    """The session as SVG, in the reader's own monospaced letters: nothing is fetched to show it."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number, (typed, lines) in enumerate(session.items()):
        if number:
            console.print()
        console.print(Text.assemble(("$ ", "bold green"), (typed, "bold")))
        for text in AnsiDecoder().decode("\n".join(lines)):
            console.print(text, no_wrap=True, highlight=False)
    picture = console.export_svg(title="tinyres", unique_id="terminal")
    letters = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    return re.sub(r"font-family: ?(Fira Code|arial)[^;]*;", f"font-family: {letters};", picture)


def main() -> None:
    """Run the session and write the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(REPOSITORY / "docs" / "pictures" / "cat.jpg", folder)
        session = {typed: screen(run_in_terminal(shlex.split(typed), folder)) for typed in SESSION}
    PICTURE.write_text(drawn(session), encoding="utf-8", newline="\n")
    print(f"wrote {PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
