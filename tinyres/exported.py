"""Which exported file stands for a model, and whether the certificate beside it is its own. It opens no artifact."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tinyres.files import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

    from tinyres.runs import Model


def find_artifact(model: Model) -> Path:
    """The file to classify with: the one named, else what was exported of it, fp32 first, else the checkpoint itself.

    An artifact of other weights, from before a longer training or another version of shipped ones, does not count.
    """
    if model.how == "file":
        return model.path
    artifacts = sorted(model.exports.glob("*.onnx"), key=lambda path: (path.stem != "fp32", path.name))
    digest = sha256_of(model.path) if artifacts else ""
    return next((path for path in artifacts if _certified(path, "checkpoint_sha256") == digest), model.path)


def doubt_of(artifact: Path) -> str:
    """Why nothing says that it answers like its checkpoint; empty if its certificate does."""
    proven = _certified(artifact, "artifact_sha256")
    if not proven:
        return f"{artifact.name} has no certificate beside it"
    return "" if proven == sha256_of(artifact) else f"{artifact.name} is not the file of its certificate"


def _certified(artifact: Path, field: str) -> str:
    """What an artifact's certificate says; empty without one."""
    try:
        return str(json.loads(artifact.with_name(artifact.name + ".json").read_bytes())[field])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
