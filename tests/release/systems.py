"""Which names each system lacks, and whether it can come to a place in a module: read off the syntax tree alone.

A condition is worked out as that system would: after `if sys.platform == "win32": return` Windows comes no further.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MODULES = ("crypt", "fcntl", "grp", "nis", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty")
"""That Windows lacks."""
POSIX = {
    "os": "EX_OK F_LOCK O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC P_ALL WEXITSTATUS WIFEXITED"
    " WIFSIGNALED WNOHANG WTERMSIG chown chroot confstr ctermid fchown fdatasync fork forkpty getegid geteuid getgid"
    " getgroups getloadavg getpgid getpgrp getpriority getsid getuid initgroups killpg lchown lockf major makedev minor"
    " mkfifo mknod nice openpty pathconf pipe2 posix_fadvise posix_fallocate posix_spawn pread preadv pwrite pwritev"
    " readv register_at_fork sched_get_priority_max sched_getaffinity sched_setaffinity sched_yield sendfile setegid"
    " seteuid setgid setgroups setpgid setpriority setsid setuid statvfs sync sysconf tcgetpgrp ttyname uname wait"
    " wait3 wait4 waitid writev",
    "select": "devpoll epoll kqueue poll",
    "signal": "ITIMER_REAL SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGPROF SIGQUIT SIGSTOP SIGTSTP"
    " SIGUSR1 SIGUSR2 SIGWINCH alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending"
    " sigtimedwait sigwait",
    "socket": "AF_NETLINK AF_PACKET AF_UNIX sethostname",
    "time": "CLOCK_MONOTONIC CLOCK_PROCESS_CPUTIME_ID CLOCK_REALTIME clock_getres clock_gettime clock_settime"
    " pthread_getcpuclockid tzset",
}
LINUX = {
    "os": "O_DIRECT copy_file_range eventfd getrandom memfd_create posix_fadvise posix_fallocate sched_getaffinity"
    " sched_setaffinity splice",
    "select": "epoll",
    "signal": "sigtimedwait",
    "socket": "AF_NETLINK AF_PACKET",
}


def _dotted(*tables: dict[str, str]) -> frozenset[str]:
    pairs = [(module, name) for table in tables for module, names in table.items() for name in names.split()]
    return frozenset(f"{module}.{name}" for module, name in pairs)


ABSENT = {"win32": _dotted(POSIX, LINUX), "darwin": _dotted(LINUX)}
"""By `sys.platform`."""
UNKNOWN = object()
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPARISONS: dict[type[ast.cmpop], Callable[..., bool]] = {
    ast.Eq: lambda left, right: left == right,
    ast.NotEq: lambda left, right: left != right,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
    ast.Is: lambda left, right: left is right,
    ast.IsNot: lambda left, right: left is not right,
}


@dataclass
class Module:
    """A syntax tree whose nodes know what they are in."""

    tree: ast.Module
    parents: dict[ast.AST, ast.AST] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)
    """The full name of what a name stands for."""

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            self.parents |= dict.fromkeys(ast.iter_child_nodes(node), node)
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self.imported[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom):
                self.imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}

    def calls(self) -> Iterator[ast.Call]:
        """All of them."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))

    def name_of(self, node: ast.AST) -> str:
        """The full name that an expression spells, as `os.fork`; empty if it is none."""
        if isinstance(node, ast.Name):
            return self.imported.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (owner := self.name_of(node.value)):
            return f"{owner}.{node.attr}"
        return ""

    def is_reached(self, node: ast.AST, system: str) -> bool:
        """Whether a system can come to it."""
        return not any(self._skips(parent, part, system) for parent, part in self._around(node))

    def is_caught(self, node: ast.AST, *errors: str) -> bool:
        """Whether a try around it, in the same function, takes one of these errors."""
        wanted = {*errors, "Exception", "BaseException"}
        for parent, part in self._around(node):
            if isinstance(parent, FUNCTIONS):
                return False
            if isinstance(parent, ast.Try) and part in parent.body and wanted & self.errors_of(*parent.handlers):
                return True
            if isinstance(parent, ast.With) and wanted & self.errors_of(*parent.items):
                return True
        return False

    def errors_of(self, *takers: ast.ExceptHandler | ast.withitem) -> set[str]:
        """The names of the errors that handlers or `with suppress(...)` take."""
        found: set[str] = set()
        for taker in takers:
            if isinstance(taker, ast.withitem):
                call = taker.context_expr
                if isinstance(call, ast.Call) and self.name_of(call.func) == "contextlib.suppress":
                    found |= {self.name_of(argument) for argument in call.args}
            elif taker.type is None:
                found.add("BaseException")
            else:
                kinds = taker.type.elts if isinstance(taker.type, ast.Tuple) else [taker.type]
                found |= {self.name_of(kind) for kind in kinds}
        return found

    def function_of(self, node: ast.AST) -> ast.AST:
        """The function that it is in, or the module."""
        return next((parent for parent, _ in self._around(node) if isinstance(parent, FUNCTIONS)), self.tree)

    def value(self, node: ast.AST, system: str) -> object:
        """What an expression comes to on a system, or UNKNOWN."""
        if isinstance(node, ast.Constant):
            return node.value
        worked_out: object = UNKNOWN
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            parts = [self.value(part, system) for part in node.elts]
            worked_out = UNKNOWN if UNKNOWN in parts else tuple(parts)
        elif isinstance(node, (ast.Name, ast.Attribute)):
            known = {"sys.platform": system, "os.name": "nt" if system == "win32" else "posix"}
            absent = dict.fromkeys(MODULES) if system == "win32" else {}  # as `except ImportError: fcntl = None` has it
            worked_out = {**known, "typing.TYPE_CHECKING": False, **absent}.get(self.name_of(node), UNKNOWN)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.value(node.operand, system)
            worked_out = UNKNOWN if inner is UNKNOWN else not inner
        elif isinstance(node, ast.BoolOp):
            worked_out = self._joined(node, system)
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            sides = [self.value(side, system) for side in (node.left, node.comparators[0])]
            compare = COMPARISONS.get(type(node.ops[0]))
            worked_out = compare(*sides) if compare and UNKNOWN not in sides else UNKNOWN
        elif isinstance(node, ast.Call):
            worked_out = self._answer(node, system)
        return worked_out

    def _around(self, node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        """Each node that holds it, from within, with its part that does."""
        while node in self.parents:
            yield self.parents[node], node
            node = self.parents[node]

    def _skips(self, parent: ast.AST, part: ast.AST, system: str) -> bool:
        """Whether a system never comes to a part of a node that it comes to."""
        if isinstance(parent, (ast.If, ast.IfExp, ast.While)) and part is not parent.test:
            test = self.value(parent.test, system)
            in_body = part in parent.body if isinstance(parent.body, list) else part is parent.body
            if test is not UNKNOWN and bool(test) != in_body:
                return True
        if isinstance(parent, ast.BoolOp):
            earlier = [self.value(value, system) for value in parent.values[: _index(parent.values, part)]]
            return any(value is not UNKNOWN and bool(value) == isinstance(parent.op, ast.Or) for value in earlier)
        blocks = [block for _, block in ast.iter_fields(parent) if isinstance(block, list) and part in block]
        return any(self._leaves(before, system) for block in blocks for before in block[: _index(block, part)])

    def _leaves(self, node: ast.AST, system: str) -> bool:
        """Whether what follows a statement in its block is never reached."""
        if isinstance(node, ast.Try) and any(lacking(each, system) for each in node.body if _is_import(each)):
            errors = {"ImportError", "ModuleNotFoundError"}
            handlers = [handler for handler in node.handlers if errors & self.errors_of(handler)]
            return any(self._leaves(each, system) for handler in handlers for each in handler.body)
        if not isinstance(node, ast.If):
            return isinstance(node, (ast.Return, ast.Raise, ast.Continue, ast.Break))
        test = self.value(node.test, system)
        ways = [node.body, node.orelse] if test is UNKNOWN else [node.body if test else node.orelse]
        return all(any(self._leaves(inner, system) for inner in way) for way in ways)

    def _joined(self, node: ast.BoolOp, system: str) -> object:
        decides = isinstance(node.op, ast.Or)
        values = [self.value(part, system) for part in node.values]
        if decides in [bool(value) for value in values if value is not UNKNOWN]:
            return decides
        return UNKNOWN if UNKNOWN in values else not decides

    def _answer(self, node: ast.Call, system: str) -> object:
        name = self.name_of(node.func)
        arguments = [self.value(argument, system) for argument in node.args]
        if name == "hasattr" and f"{self.name_of(node.args[0])}.{arguments[1]}" in ABSENT[system]:
            return False
        if name == "platform.system":
            return {"win32": "Windows", "darwin": "Darwin"}[system]
        if name == "sys.platform.startswith" and isinstance(arguments[0], (str, tuple)):
            return system.startswith(arguments[0])
        return UNKNOWN


def lacking(node: ast.AST, system: str, name: str = "") -> set[str]:
    """What a system lacks of what a statement imports, or of the full `name` of an expression."""
    names = {name}
    if isinstance(node, ast.ImportFrom):
        names = {f"{node.module}.{alias.name}" for alias in node.names}
    elif isinstance(node, ast.Import):
        names = {f"{alias.name}." for alias in node.names}
    modules = {each for each in names if system == "win32" and each.startswith(tuple(f"{each}." for each in MODULES))}
    return {each.rstrip(".") for each in (names & ABSENT[system]) | modules}


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _index(parts: list[ast.expr] | list[ast.stmt], part: ast.AST) -> int:
    return next(index for index, each in enumerate(parts) if each is part)
