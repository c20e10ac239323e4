"""What a file or folder is, in a few facts: for `tinyres info`. It loads no framework and proves nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyres import records
from tinyres.data.cache import Manifest
from tinyres.errors import ArtifactError, CheckpointError, InputError, suggest_file
from tinyres.files import read_whole, sha256_of
from tinyres.harmless import shown
from tinyres.header import CheckpointHeader, read_header
from tinyres.runs import Run, merit
from tinyres.runtime.metadata import read_artifact
from tinyres.runtime.passport import BuildOptions, read_passport
from tinyres.units import size

if TYPE_CHECKING:
    from tinyres.spec import ModelSpec

MOST_SHOWN = 500
"""Characters of a fact that people are shown; --json has all."""


@dataclass(frozen=True, slots=True)
class Description:
    """What something is."""

    kind: str
    facts: dict[str, str]

    def text(self) -> str:
        """The facts for people, in 80 columns."""
        pad = " " * 15
        facts = [(_told(name), _told(value)) for name, value in self.facts.items()]
        lines = ((name, textwrap.fill(value, 80, initial_indent=pad, subsequent_indent=pad)) for name, value in facts)
        return "\n".join(f"  {name:12} {line[15:]}" for name, line in lines)


def _told(text: str) -> str:
    """`text`, a stranger's maybe, so that it adds no line of its own; cut, since a long word takes long to wrap."""
    return shown(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")


def describe(path: Path) -> Description:
    """Describe a run, cache, checkpoint, artifact, certificate or golden vectors. Errors: InputError if it is none."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"there is nothing at {path}", hint=suggest_file(path))
    if path.name.endswith(".golden.npz"):
        return _golden(path)
    kinds = {".safetensors": _checkpoint, ".onnx": _artifact, ".engine": _engine, ".json": _record}
    if path.suffix in kinds:
        return kinds[path.suffix](path)
    hint = f"tinyres import {path}" if path.suffix in (".pth", ".pt") else None
    known = f"it describes {', '.join(kinds)} and .golden.npz files"
    raise InputError(f"info does not describe {path.suffix or 'such'} files: {path}", hint=hint or known)


def _folder(path: Path) -> Description:
    if (path / "config.json").is_file():
        run = Run(path)
        config, state = run.config(), run.state()
        recipe = config.recipe.name if config.recipe else "imported"
        facts = {"name": run.name, "state": state.state, "created": config.created, "recipe": recipe}
        facts |= {"trained on": config.data_kind, "judged on": config.judged_on, **spec_facts(config.spec)}
        history = run.history() if (path / "history.json").is_file() else []
        if history:
            best = max(history, key=merit)
            facts["epochs"] = str(state.epochs)
            facts["best"] = f"{best.val_acc:.2%} top-1 on {best.val_images} images, epoch {best.epoch}"
        artifacts = [file.name for file in (path / "export").glob("*") if file.suffix in (".onnx", ".engine")]
        facts["artifacts"] = ", ".join(sorted(artifacts)) or "none"
        return Description("run", facts)
    if (path / "manifest.json").is_file():
        manifest = records.load(Manifest, path / "manifest.json")
        counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
        facts = {"data": manifest.kind, "pictures": counts, "classes": str(len(manifest.class_ids))}
        facts |= {"size": f"{manifest.image_size}x{manifest.image_size}", "unreadable": str(len(manifest.unreadable))}
        return Description("cache of decoded pictures", facts)
    files = sorted([*path.glob("*.onnx"), *path.glob("*.engine")])
    raise InputError(
        f"{path} is neither a run nor a cache: it has no config.json and no manifest.json",
        hint=f"tinyres info {files[0]}" if files else "name a file, or the folder of a run",
    )


def _checkpoint(path: Path) -> Description:
    """From the header alone."""
    with path.open("rb") as file:
        found = read_header(file)
    if found is None:
        raise CheckpointError(f"{path} is not a checkpoint of ours", hint="tinyres train and import write checkpoints")
    text, tensors = found
    facts = {"file": size(path.stat().st_size), "tensors": str(len(tensors))}
    if text.startswith('{"$dict"'):
        return Description("training state, to resume from", facts)
    known = records.from_json(CheckpointHeader, text, source=f"the header of {path}", error=CheckpointError)
    origin = known.origin
    facts |= {"run": origin.run, "recipe": origin.recipe, "trained on": origin.data_kind, "epoch": str(origin.epoch)}
    facts |= {"step": str(origin.step), "selected on": origin.selected_on, **spec_facts(known.spec)}
    return Description("checkpoint", facts)


def _artifact(path: Path) -> Description:
    _, metadata = read_artifact(path)
    sha256 = sha256_of(path)
    facts = {"file": size(path.stat().st_size), "SHA-256": sha256, "precision": metadata.precision}
    facts |= spec_facts(metadata.spec)
    if metadata.target:
        facts["precision"] += f", laid out for {metadata.target}"
    facts["certificate"] = _certificate_of(path, sha256)
    return Description("ONNX artifact", facts)


def _engine(path: Path) -> Description:
    """From its passport: the file itself is TensorRT's, and only its own version on its own GPU reads it."""
    passport = read_passport(path)
    least, usual, most = passport.options.batches
    asked = {name: getattr(passport.options, name) for name in BuildOptions.__dataclass_fields__ if name != "batches"}
    given = {name.replace("_", " "): value for name, value in asked.items() if value is not None and value is not False}
    options = [name if value is True else f"{name} {value}" for name, value in given.items()]
    facts = {"file": size(path.stat().st_size), "built by": f"{passport.library} {passport.version}"}
    facts |= {"for": passport.built_for.partition(" on ")[2], "driver": passport.driver or "none: ahead of time"}
    facts |= {"batches": f"{least} to {most}, fastest at {usual}", "options": ", ".join(options) or "none"}
    facts |= {"precision": passport.metadata.precision, "shown by": passport.precision_proof}
    facts |= {"ONNX file": passport.onnx_sha256, **spec_facts(passport.metadata.spec)}
    return Description("TensorRT engine", facts | {"certificate": _certificate_of(path, sha256_of(path))})


def _certificate_of(artifact: Path, its_sha256: str) -> str:
    path = artifact.with_name(artifact.name + ".json")
    try:
        fields = records.load_any(path)
        grade, sha256, judged = fields["grade"], fields["artifact_sha256"], fields["images"]["count"]
    except (InputError, KeyError, TypeError):
        return "none: not proven"
    if sha256 != its_sha256:
        return f"{path.name}, of another file: not proven"
    return f"{path.name}, grade {grade}, {judged} images"


def _record(path: Path) -> Description:
    """By its fields: every record of ours is written by one type."""
    fields = records.load_any(path)
    if isinstance(fields, list) and all(isinstance(line, dict) and "val_acc" in line for line in fields):
        return _history([line["val_acc"] for line in fields])
    if isinstance(fields, dict):
        if {"recipe", "spec", "data_kind"} <= fields.keys():
            return _folder(path.parent)
        for known, tell in _RECORDS:
            if known <= fields.keys():
                return tell(fields)
    raise InputError(f"{path} is JSON, but no record of tinyres's")


def _certificate(fields: dict[str, Any]) -> Description:
    levels = [f"{level.get('name')} {_verdict(level.get('passed'))}" for level in _dicts(fields["levels"])]
    facts = {key: str(fields.get(key, "")) for key in ("artifact", "grade", "run", "recipe", "created", "backend")}
    facts |= {"trained on": str(fields.get("trained_on")), "levels": ", ".join(levels)}
    return Description("certificate", facts)


def _verdict(passed: object) -> str:
    if passed is None:
        return "not judged"
    return "passed" if passed is True else "NOT PASSED"


def _results(fields: dict[str, Any]) -> Description:
    facts = {key: str(fields.get(key, "")) for key in ("run", "created", "command", "threads")}
    return Description(
        "bench results", facts | {"contenders": ", ".join(str(row.get("name")) for row in _dicts(fields["rows"]))}
    )


def _state(fields: dict[str, Any]) -> Description:
    return Description("state of a run", {key: str(value) for key, value in fields.items() if value != ""})


def _golden_json(fields: dict[str, Any]) -> Description:
    return Description("golden vectors for other languages", {"pictures": str(len(_dicts(fields["pictures"])))})


def _environment(fields: dict[str, Any]) -> Description:
    packages = fields["packages"] if isinstance(fields["packages"], dict) else {}
    facts = {key: str(fields.get(key)) for key in ("cpu", "cores", "gpu", "python")}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    return Description("environment of a run", facts | {"packages": versions})


def _seed_history(fields: dict[str, Any]) -> Description:
    return _history(fields["val_acc"] if isinstance(fields["val_acc"], list) else [])


_RECORDS: tuple[tuple[set[str], Callable[[dict[str, Any]], Description]], ...] = (
    ({"grade", "levels", "artifact"}, _certificate),
    ({"rows", "scope", "environment"}, _results),
    ({"state", "epochs", "message"}, _state),
    ({"schema", "pictures"}, _golden_json),
    ({"instruction_sets", "packages"}, _environment),
    ({"train_loss", "val_acc"}, _seed_history),
)
"""The fields that tell a record from the others, and how it is told."""


def _dicts(values: Any) -> list[dict[str, Any]]:
    """The JSON objects of what should be a list of them."""
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _history(accuracies: list[Any]) -> Description:
    known = [value for value in accuracies if isinstance(value, (int, float)) and 0 <= value <= 1]
    return Description(
        "training history", {"epochs": str(len(accuracies)), "best": f"{max(known, default=0.0):.2%} top-1"}
    )


def _golden(path: Path) -> Description:
    from tinyres.arrays import read_arrays

    content = read_whole(path, records.MAX_RECORD_BYTES, error=ArtifactError)
    try:
        pixels, exact = (array.shape for array in read_arrays(content, ("pixels", "exact")).values())
        (count, *sides), (_, classes) = pixels, exact
    except Exception as exc:
        raise ArtifactError(f"{path.name} is not a file of golden vectors: {shown(str(exc))}") from exc
    facts = {"pictures": str(count), "pixels": "x".join(map(str, sides)), "classes": str(classes)}
    return Description("golden vectors (drawn pictures)", facts | {"file": size(path.stat().st_size)})


def spec_facts(spec: ModelSpec) -> dict[str, str]:
    """The facts of a ModelSpec."""
    shown = ", ".join(name.split(",")[0] for name in spec.class_names[:3]) + (", ..." if spec.classes > 3 else "")
    side = spec.preprocess.image_size
    return {
        "network": f"blocks {'-'.join(map(str, spec.blocks))}, widths {'-'.join(map(str, spec.widths))}",
        "input": f"uint8 RGB (N, {side}, {side}, 3)",
        "mean": "  ".join(map(str, spec.preprocess.mean)),
        "std": "  ".join(map(str, spec.preprocess.std)),
        "classes": f"{spec.classes}: {shown}",
    }
