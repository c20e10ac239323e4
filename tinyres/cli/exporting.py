"""Export: one command; `tinyres.export.formats` knows each format's way."""

# No `from __future__ import annotations` here: Typer reads the annotations as objects.
import shlex
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyres.cli import completing
from tinyres.cli.command import command
from tinyres.cli.completing import offer
from tinyres.cli.root import RUNS, Cache, ModelArgument, OtherData, Runs, app, echo
from tinyres.console import Console, shell_line
from tinyres.errors import BackendUnavailable, UsageError

if TYPE_CHECKING:
    from tinyres.export.artifact import Exported
    from tinyres.export.certificate import Level
    from tinyres.export.triton import Repository
    from tinyres.runs import Model

ENGINES = "Engines (--format trt)"
INT8 = "Calibration (--precision int8)"


@command(
    app,
    examples=(
        ("the newest run, to ONNX", "tinyres export"),
        (
            "int8, calibrated and judged on real pictures",
            "tinyres export nano --precision int8 --data tiny-imagenet-200.zip",
        ),
        ("with a program that uses it in a browser", "tinyres export nano --example browser"),
        ("a TensorRT engine, from a proven file", "tinyres export runs/nano/export/fp32.onnx --format trt"),
    ),
)
def export(
    out: Console,
    model: ModelArgument = None,
    format_: Annotated[
        str,
        typer.Option("--format", help="onnx, trt or triton.", autocompletion=offer(completing.FORMATS)),
    ] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp32, fp16, bf16 or int8.", show_default="fp32", autocompletion=offer(completing.PRECISIONS)
        ),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Batch sizes, least:usual:most, all proven.", show_default="1:32:256")
    ] = None,
    proof_images: Annotated[int | None, typer.Option(min=1, help="Judged on so many.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Else the run's export folder.")] = None,
    data: OtherData = None,
    example: Annotated[
        str | None,
        typer.Option(
            help="python, node, browser, cpp or ray: a program that uses the file.",
            autocompletion=offer(completing.EXAMPLES),
        ),
    ] = None,
    runs: Runs = RUNS,
    cache: Cache = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda or tensorrt: what can fuse it.",
            rich_help_panel=INT8,
            autocompletion=offer(completing.TARGETS),
        ),
    ] = None,
    calibration_images: Annotated[
        int | None,
        typer.Option(min=1, help="Training pictures to measure on.", show_default="512", rich_help_panel=INT8),
    ] = None,
    max_accuracy_drop: Annotated[
        float | None, typer.Option(help="In points: the fastest file that loses no more.", rich_help_panel=INT8)
    ] = None,
    reduced_range: Annotated[
        bool, typer.Option("--reduced-range", help="For CPUs without VNNI: weights in 7 bits.", rich_help_panel=INT8)
    ] = False,
    runtime: Annotated[
        str,
        typer.Option(help="auto, trt or rtx.", rich_help_panel=ENGINES, autocompletion=offer(completing.RUNTIMES)),
    ] = "auto",
    compute_capability: Annotated[
        str | None, typer.Option(help="Of another GPU (rtx): 8.9, 12.0, ...", rich_help_panel=ENGINES)
    ] = None,
    build_only: Annotated[
        bool, typer.Option("--build-only", help="Exit code 0 where nothing can run it.", rich_help_panel=ENGINES)
    ] = False,
    workspace: Annotated[int | None, typer.Option(min=1, help="In MiB.", rich_help_panel=ENGINES)] = None,
    optimization_level: Annotated[
        int | None, typer.Option(min=0, max=5, help="0 builds fast, 5 runs fast.", rich_help_panel=ENGINES)
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="Measured kernels, kept in this file (trt).", rich_help_panel=ENGINES)
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Loads in newer versions too (trt).", rich_help_panel=ENGINES)
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Runs on Ampere and newer too (trt).", rich_help_panel=ENGINES)
    ] = False,
) -> int:
    """Convert a checkpoint and prove that the artifact answers like it; exit code 3 if it does not.

    MODEL may be a proven .onnx file for trt, triton and --example: then neither checkpoint nor PyTorch is needed.
    """
    from tinyres.errors import require_choice
    from tinyres.runs import find_model

    require_choice("format", format_, completing.FORMATS)
    if precision is not None:
        require_choice("precision", precision, completing.PRECISIONS)
    if target is not None:
        require_choice("target", target, completing.TARGETS)
    calibration: dict[str, object] = {"target": target, "images": calibration_images, "reduced": reduced_range or None}
    calibration["most_drop"] = None if max_accuracy_drop is None else max_accuracy_drop / 100
    asked = {name: value for name, value in calibration.items() if value is not None}
    if asked and precision != "int8":
        raise UsageError("nothing is calibrated but int8", hint="--precision int8, or leave these options out")
    if example is not None:
        require_choice("example", example, completing.EXAMPLES)
    require_choice("runtime", runtime, completing.RUNTIMES)
    chosen = echo(out, find_model(model, runs))
    from tinyres.export.options import Int8Options, parse_batches

    batches = parse_batches(batch) if batch is not None else None
    from tinyres.export.formats import EngineRequest, Request, export_model, usual_target

    request = Request(
        format_,  # type: ignore[arg-type]
        precision,  # type: ignore[arg-type]
        Int8Options(**{"target": usual_target(format_), **asked}) if asked else None,  # type: ignore[arg-type]
        batches,
        folder,
        proof_images,
        data,
        cache,
        EngineRequest(
            runtime,  # type: ignore[arg-type]
            compute_capability,
            workspace,
            optimization_level,
            timing_cache,
            version_compatible,
            hardware_compatible,
            build_only,
        ),
        example,  # type: ignore[arg-type]
    )
    written = export_model(chosen, request, progress=out)
    record, text, next_steps = told(written, chosen)
    out.result(record, text, *next_steps)
    unproven = written.certificate.grade == "unproven"
    return BackendUnavailable.exit_code if unproven and not build_only else 0


def told(written: "Exported | Repository", chosen: "Model") -> tuple[object, str, list[str]]:
    """What was written, for programs and for people, and the next steps."""
    from tinyres.export.artifact import Exported

    certificate = written.certificate
    if not isinstance(written, Exported):
        throughput = written.throughput
        speeds = ", ".join(f"{size}: {speed:.0f}" for size, speed in throughput.images_per_second.items())
        text = (
            f"{written.folder}: serves {written.model} from {certificate.artifact}, proven ({certificate.grade})\n"
            f"  pictures a second by batch size, {throughput.where}:\n  {speeds}"
        )
        answer = {"folder": str(written.folder), "model": written.model, "preferred": throughput.preferred}
        serve = shlex.join(["sh", str(written.folder / "serve.sh")])
        ask = f"{shlex.join(['python', str(written.folder / 'client.py')])} PICTURE"
        return {**answer, "throughput": throughput, "certificate": certificate}, text, [serve, ask]
    if certificate.grade == "unproven":
        verdict = "built, not proven on a device"
        verify = shell_line("verify", written.path)
        next_steps = ["on a machine with its GPU, with the files beside it:", verify]
    else:
        verdict = f"proven ({certificate.grade})"
        next_steps = [shell_line("bench", chosen.name) if chosen.run else shell_line("verify", written.path)]
    if written.example is not None:
        program = f"python {shlex.quote(str(written.example))} PICTURE"
        next_steps = [f"see {written.example}/README.md" if written.example.is_dir() else program]
    calibration = f"\n  {'ranges':12} {certificate.calibration}" if certificate.calibration else ""
    text = f"{written.path}: {verdict}{calibration}\n{levels_text(certificate.levels)}"
    record: dict[str, object] = {"artifact": str(written.path), "certificate": certificate}
    if written.example is not None:
        record["example"] = str(written.example)
    return record, text, next_steps


def levels_text(levels: "tuple[Level, ...]") -> str:
    """One line a level; those that say the same, since nothing could run, share one."""
    lines = []
    for detail, alike in groupby(levels, key=lambda level: level.detail):
        names = [level.name for level in alike]
        lines.append(f"  {names[0] if len(names) == 1 else 'the rest':12} {detail}")
    return "\n".join(lines)
