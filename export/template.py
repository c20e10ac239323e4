"""The programs in `templates/`, with their @places@ filled: what is written for a user to run elsewhere."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def fill_template(name: str, values: Mapping[str, str]) -> str:
    """The text of the template `name`, a path below `templates/`. Errors: KeyError for a place without a value."""
    text = resources.files("tinyres.export").joinpath("templates", *name.split("/")).read_text(encoding="utf-8")
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)
