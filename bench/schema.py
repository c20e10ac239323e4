"""The JSON schema of results.json, from the classes that it is written from: `python -m tinyres.bench.schema`."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter

from tinyres import records
from tinyres.bench import results
from tinyres.environment import Environment
from tinyres.metrics import Accuracy
from tinyres.runtime.runner import Precision

CLASSES: tuple[type, ...] = (
    results.Row,
    results.Measurement,
    results.Load,
    results.Block,
    results.ColdStart,
    results.Parity,
)
CLASSES += (results.ProofLevel, Precision, Accuracy, Environment)


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12; what a class says of itself and its fields is their description."""
    found = TypeAdapter(results.Results).json_schema(mode="serialization")
    for kind in CLASSES:
        _describe(found["$defs"][kind.__name__], kind)
    _describe(found, results.Results)
    found["properties"]["schema"] = {"const": results.SCHEMA, "description": "Version of this schema."}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "Results of tinyres bench"}


def _describe(part: dict[str, Any], kind: type) -> None:
    """Say what a class says, and that nothing else is in it: every field is written, also where it has a default."""
    part["description"] = inspect.cleandoc(kind.__doc__ or "")
    part["required"] = list(part["properties"])
    part["additionalProperties"] = False
    (defined,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = defined.body if isinstance(defined, ast.ClassDef) else []
    for field, under in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(under, ast.Expr)
            and isinstance(under.value, ast.Constant)
        ):
            part["properties"][field.target.id]["description"] = " ".join(str(under.value.value).split())


if __name__ == "__main__":
    sys.stdout.write(records.to_json(schema()) + "\n")
