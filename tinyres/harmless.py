"""Text of strangers, such as the names of files and classes: it must move no cursor, and forge no line of ours."""

from __future__ import annotations

import re

from tinyres.errors import UsageError

_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line ends, marks that reorder what follows, and halves of characters."""
_ACTING_IN_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""The same of whole answers, in which tab and line feed are ours, and halves are left to the output's encoding."""


def acts(name: str) -> bool:
    """Whether a name holds what a terminal, or a reader of lines, would act on."""
    return _ACTING.search(name) is not None


def require_shown(*names: str) -> None:
    """Errors: UsageError for a name that acts, in a record that is read or made."""
    if odd := next((name for name in names if acts(name)), None):
        raise UsageError(f"a recorded name would act on a terminal: {odd[:60]!r}")


def shown(name: str) -> str:
    """A name as a message may hold it: in one line, and in characters; what is neither is spelled out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


def shown_lines(text: str) -> str:
    """An answer with what acts spelled out; JSON stays JSON."""
    return _ACTING_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
