"""What Python source would do wrong on Windows or macOS."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from systems import ABSENT, Module, lacking

SYSTEM_PATH = re.compile(r"/(proc|sys|dev|etc|run|tmp|usr|var|home|opt)(/|$)")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
TEXT_METHODS = {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "count", "find"}
NO_FILES = ("os.", "tarfile.", "zipfile.", "PIL.", "webbrowser.")
"""Whose `open` opens no text."""


@dataclass(frozen=True, order=True)
class Finding:
    """What a line would do wrong."""

    line: int
    kind: str
    text: str


def is_usable_name(name: str) -> bool:
    """Whether Windows takes it as the name of a file, and keeps it as it is."""
    return not (FORBIDDEN.search(name) or RESERVED.fullmatch(name) or name.endswith((".", " ")) or not name)


def findings(source: str) -> list[Finding]:
    """All of a module, in the order of its lines."""
    module = Module(ast.parse(source))
    return sorted({finding for rule in RULES for finding in rule(module)})


def absent_names(module: Module) -> Iterator[Finding]:
    """Names and modules that a system lacks."""
    for node in ast.walk(module.tree):
        if not isinstance(node, (ast.Attribute, ast.Import, ast.ImportFrom)):
            continue
        errors = ["AttributeError"] if isinstance(node, ast.Attribute) else ["ImportError", "ModuleNotFoundError"]
        for system in ABSENT:
            absent = lacking(node, system, module.name_of(node))
            if absent and module.is_reached(node, system) and not module.is_caught(node, *errors):
                yield Finding(node.lineno, "absent", f"{min(absent)} is not there on {system}")


def system_paths(module: Module) -> Iterator[Finding]:
    """Paths of one system, unless what reads them takes their absence, in the same function."""
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and SYSTEM_PATH.match(node.value)):
            continue
        parent = module.parents[node]
        if isinstance(parent, ast.Expr) or (isinstance(parent, ast.JoinedStr) and parent.values[0] is not node):
            continue  # a docstring, or the middle of a text
        temporary = node.value.startswith("/tmp")  # noqa: S108 - looked for, not used
        if temporary or (module.is_reached(node, "win32") and not _takes_absence(module, module.function_of(node))):
            yield Finding(node.lineno, "path", f"{node.value} is a path of one system")


def _takes_absence(module: Module, function: ast.AST) -> bool:
    nodes = list(ast.walk(function))
    asks = {node.attr for node in nodes if isinstance(node, ast.Attribute)} & {"is_file", "is_dir", "exists"}
    takers = [node for node in nodes if isinstance(node, (ast.ExceptHandler, ast.withitem))]
    return bool(asks) or "OSError" in module.errors_of(*takers)


def processes(module: Module) -> Iterator[Finding]:
    """How processes start: fork is not everywhere, and the default is not one."""
    for call in module.calls():
        name, keywords = module.name_of(call.func), {keyword.arg for keyword in call.keywords}
        said = ""
        if name in {"multiprocessing.set_start_method", "multiprocessing.get_context"}:
            if [module.value(argument, "win32") for argument in call.args] != ["spawn"]:
                said = f"{name} is to name spawn, which every system has"
        elif name in {"multiprocessing.Pool", "multiprocessing.Process", "multiprocessing.Queue"}:
            said = f"{name} starts processes by a default that systems differ in"
        elif name.rpartition(".")[2] == "ProcessPoolExecutor" and "mp_context" not in keywords:
            said = "without mp_context ProcessPoolExecutor takes a default that systems differ in"
        elif name.startswith("subprocess.") and "preexec_fn" in keywords:
            said = "preexec_fn is refused on win32"
        elif name.startswith("subprocess.") and "start_new_session" in keywords and "creationflags" not in keywords:
            said = "start_new_session does nothing on win32; creationflags does"
        if said:
            yield Finding(call.lineno, "process", said)


def renames(module: Module) -> Iterator[Finding]:
    """Renaming over a file that is there fails on Windows; replace does it everywhere."""
    for call in module.calls():
        is_rename = isinstance(call.func, ast.Attribute) and call.func.attr in {"rename", "renames"}
        if is_rename and len(call.args) in {1, 2} and not call.keywords:
            yield Finding(call.lineno, "rename", "rename fails on win32 where the target is there; replace does not")


def text_files(module: Module) -> Iterator[Finding]:
    """Text without an encoding, or written with the line ends of the system."""
    for call in module.calls():
        keywords = {keyword.arg for keyword in call.keywords}
        mode, by_name = _text_mode(module, call)
        if mode and None not in keywords and "encoding" not in keywords:
            yield Finding(call.lineno, "encoding", "the encoding is that of the system")
        if mode and by_name and set(mode) & set("wax+") and not {None, "newline"} & keywords:
            yield Finding(call.lineno, "newline", "the line ends are those of the system")


def _text_mode(module: Module, call: ast.Call) -> tuple[str, bool]:
    """The mode in which a call opens text, empty if it opens none, and whether it opens a file by its name."""
    name, method = module.name_of(call.func), call.func.attr if isinstance(call.func, ast.Attribute) else ""
    place, default = 0, ""
    if name in {"open", "io.open", "os.fdopen"}:
        place, default = 1, "r"
    elif name in {"gzip.open", "bz2.open", "lzma.open"}:
        place, default = 1, "rb"
    elif name.startswith("tempfile.") and name.endswith("TemporaryFile"):
        default = "w+b"
    elif method == "open" and not name.startswith(NO_FILES):
        default = "rb" if call.args or isinstance(module.parents[call], ast.Expr) else "r"
    elif method == "read_text" and not call.args:
        default = "r"
    elif method == "write_text" and len(call.args) == 1:  # with two it is a method of ours that takes a name
        return "w", True
    elif name.startswith("subprocess.") and {"text", "universal_newlines"} & {word.arg for word in call.keywords}:
        return "r", False
    given = [word.value for word in call.keywords if word.arg == "mode"] or call.args[place : place + 1]
    mode = module.value(given[0], "win32") if given and default else default
    if not isinstance(mode, str) or not re.fullmatch(r"[rwax][bt+]*", mode) or "b" in mode:
        return "", False
    return mode, not name.startswith(("os.", "tempfile."))


def file_names(module: Module) -> Iterator[Finding]:
    """Names of files that Windows refuses, or gives another name."""
    for node in ast.walk(module.tree):
        names: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            names = [node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            names = node.args if node.func.attr in {"with_name", "with_suffix", "with_stem", "joinpath"} else []
        for name in names:
            text = _shape_of(name)
            if not all(map(is_usable_name, [part for part in text.split("/") if part not in {"", ".", ".."}])):
                yield Finding(name.lineno, "name", f"{text!r} is no name of a file on win32")


def _shape_of(name: ast.expr) -> str:
    """A name with an x for each part that is not known; empty if none is."""
    parts = name.values if isinstance(name, ast.JoinedStr) else [name]
    if not any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in parts):
        return ""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in parts)


def joined_paths(module: Module) -> Iterator[Finding]:
    """Paths that are put together or taken apart as text: the text of a path has another separator on Windows."""
    for call in module.calls():
        name = module.name_of(call.func)
        takes_path = name in {"pathlib.Path", "open", "io.open"} or name.startswith(("os.path.", "shutil."))
        if takes_path and any(map(_is_joined, call.args)):
            yield Finding(call.lineno, "join", "a path is put together as text; Path / does it on every system")
        if isinstance(call.func, ast.Attribute) and call.func.attr in TEXT_METHODS:
            owner = call.func.value
            is_path = isinstance(owner, ast.Call) and module.name_of(owner.func) in {"str", "os.fspath"}
            if is_path and any("/" in str(module.value(argument, "win32")) for argument in call.args):
                yield Finding(call.lineno, "join", "the text of a path is taken apart at /; its parts or as_posix are")


def _is_joined(node: ast.expr) -> bool:
    pieces = node.values if isinstance(node, ast.JoinedStr) else []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        pieces = [node.left, node.right]
    texts = [str(piece.value) if isinstance(piece, ast.Constant) else "" for piece in pieces]
    return any("/" in text for text in texts) and not texts[0].startswith("/")


RULES: tuple[Callable[[Module], Iterator[Finding]], ...] = (
    absent_names,
    system_paths,
    processes,
    renames,
    text_files,
    file_names,
    joined_paths,
)
