"""The command line: each command parses, makes one call into the library, shows the result and returns the exit code.

Heavy imports stand inside the commands, behind their first line of output: `--help` loads neither numpy nor a
framework, and a command says at once what it is about.
"""

import warnings

from tinyres.cli import benching, data, exporting, machine, models, training
from tinyres.cli.root import app

__all__ = ["app", "benching", "data", "exporting", "machine", "main", "models", "training"]


def main() -> None:
    """The entry point."""
    # Pillow's warning of a large picture; it is a Python library's voice, and decode.MAX_PIXELS is our own bound.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    app()
