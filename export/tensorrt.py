"""`--format trt`: an engine from the proven ONNX file, by TensorRT 8.6 to 11 or TensorRT for RTX.

The precision asked for is that of the tensors in the ONNX file. Typed networks (10 and later, RTX) compute in exactly
these; 8.6 takes them as wishes, so its heavy layers are bound to their own. The types of the parsed network must show
it, the inspector where TensorRT's own device can load the engine, and ahead of time its size; else nothing is built.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from tinyres.errors import ArtifactError, BackendUnavailable, ProofError, StorageError, UsageError
from tinyres.export.onnx import check_file
from tinyres.export.quantize import quantized_layers
from tinyres.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tinyres.progress import Progress
    from tinyres.runtime.passport import BuildOptions
    from tinyres.runtime.tensorrt_library import Library

TURING = "7.5"
HEAVY = ("CONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED")
"""The layers that a precision is about: all the others move or add what these computed."""
ROOM = 1.5
OVERHEAD = 4 * 2**20
"""An engine may be so much larger than its weights: half precision that fell back to float32 is twice as large."""


@dataclass(frozen=True, slots=True)
class Built:
    """An engine, not yet run."""

    content: bytes
    precision_proof: str
    int8_layers: int
    """Of the ONNX file."""


def build_engine(
    content: bytes,
    library: Library,
    options: BuildOptions,
    *,
    compute_capability: str | None = None,
    timing_cache: Path | None = None,
    progress: Progress,
) -> Built:
    """Build an engine from the ONNX file `content`; kernels measured for it are kept in `timing_cache`.

    `compute_capability`, as 8.9, builds ahead of time for another GPU (RTX only). Errors: ArtifactError or ProofError
    for an ONNX file that is none of ours; UsageError for what the library cannot do; BackendUnavailable if it fails.
    """
    metadata = check_file(content)
    require_buildable(
        library,
        options,
        precision=metadata.precision,
        compute_capability=compute_capability,
        timing_cache=timing_cache,
    )
    if metadata.input != "image":
        raise ArtifactError("engines are built from files that take pictures", hint="export it without --input tensor")
    model = onnx.load_model_from_string(content)
    require_symmetric(model)
    module = library.module
    if metadata.precision == "bf16" and not hasattr(module.DataType, "BF16"):
        raise UsageError(f"{library.name} {library.version} knows no bf16", hint="--precision fp16, or a newer version")
    content = _for_parser(model, library)
    builder = module.Builder(library.logger)
    network = builder.create_network(library.network_flags())
    parser = module.OnnxParser(network, library.logger)
    if not parser.parse(content):
        raise BackendUnavailable(f"{library.name} {library.version} does not take the ONNX file: {_errors(parser)}")
    config = builder.create_builder_config()
    _configure(config, library, options, compute_capability)
    if not library.is_typed:
        _bind_precisions(network, config, library, metadata.precision)
    proof = _prove_types(network, library, metadata.precision, quantized_layers(model))
    profile = builder.create_optimization_profile()
    shapes = [(batch, *metadata.spec.input_shape) for batch in options.batches]
    profile.set_shape("image", *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise UsageError(f"{library.name} refuses the batches {options.batches}: {library.messages.take_error()}")
    kept = _timing_cache(config, timing_cache)
    if hasattr(module.IBuilderConfig, "progress_monitor"):
        config.progress_monitor = _monitor(module, progress)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        reason = library.messages.take_error() or "it gives no reason"
        raise BackendUnavailable(f"{library.name} {library.version} built no engine: {reason}")
    engine = bytes(serialized)
    ahead = library.is_rtx and metadata.precision != "fp32"
    proof += "; " + _prove_size(engine, model, must_fit=ahead)
    if kept is not None and timing_cache is not None:
        try:
            write_bytes(timing_cache, bytes(config.get_timing_cache().serialize()))
        except StorageError as exc:
            progress.warn(f"the timing cache is not kept: {exc}")  # the engine is worth more
    return Built(engine, proof, len(quantized_layers(model)))


def require_buildable(
    library: Library,
    options: BuildOptions,
    *,
    precision: str,
    compute_capability: str | None = None,
    timing_cache: Path | None = None,
) -> None:
    """Errors: UsageError for what is known, before anything is built, not to work with a library."""
    if options.batches[0] != 1:
        raise UsageError(
            f"an engine for batches from {options.batches[0]} on could not classify one picture",
            hint="--batch 1:32:256, for example; the middle one is what it is fastest at",
        )
    if compute_capability is not None:
        find_capability(library, compute_capability)
    if not library.is_rtx:
        return
    if compute_capability == TURING and precision in ("fp32", "int8"):  # which keeps some layers in float32
        raise UsageError(
            f"{library.name} multiplies no float32 matrices on Turing ({TURING})",
            hint="--runtime trt, on such a GPU, or another precision",
        )
    ignored = {  # with an error in the library's log, or none
        "--timing-cache": timing_cache,
        "--version-compatible": options.version_compatible,
        "--hardware-compatible": options.hardware_compatible,
    }
    for option, given in ignored.items():
        if given:
            raise UsageError(
                f"{option} is TensorRT's: TensorRT for RTX measures and compiles where the engine runs",
                hint="leave it out, or --runtime trt",
            )


def require_symmetric(model: onnx.ModelProto) -> None:
    """Errors: ArtifactError for int8 that TensorRT refuses, with the fix: it takes signed numbers around zero alone."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = values.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None or zero.data_type != onnx.TensorProto.INT8 or onnx.numpy_helper.to_array(zero).any():
            raise ArtifactError(
                f"{node.name or node.op_type} is unsigned or not centred on zero, and TensorRT takes no such int8",
                hint="tinyres export --precision int8 --target tensorrt",
            )


def _for_parser(model: onnx.ModelProto, library: Library) -> bytes:
    """The file as the version's parser takes it."""
    largest = library.largest_opset()
    if largest is not None and model.opset_import[0].version > largest:
        model = onnx.version_converter.convert_version(model, largest)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _errors(parser: Any) -> str:
    """All that a parser found, with the nodes' names."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name = error.node_name() if hasattr(error, "node_name") else ""
        operator = error.node_operator() if hasattr(error, "node_operator") else ""
        place = f"{name} ({operator})" if name and operator else name or f"node {error.node()}"
        found.append(f"{place}: {error.desc().strip().splitlines()[0][:200]}")
    return "; ".join(found) or "the parser gives no reason"


def _configure(config: Any, library: Library, options: BuildOptions, compute_capability: str | None) -> None:
    module = library.module
    config.clear_flag(module.BuilderFlag.TF32)  # float32 means float32
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # or the inspector shows no precision
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb * 2**20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(find_capability(library, compute_capability), 0)


def find_capability(library: Library, wanted: str) -> Any:
    """The library's own value for a compute capability such as 8.9.

    Errors: UsageError that lists what it knows, or for TensorRT, which builds for the GPU at hand.
    """
    if not library.is_rtx:
        raise UsageError(f"{library.name} builds for the GPU at hand alone", hint="--runtime rtx builds ahead of time")
    known = library.module.ComputeCapability.__members__
    names = {f"{name[2:-1]}.{name[-1]}": value for name, value in known.items() if name.startswith("SM")}
    if wanted not in names:
        raise UsageError(
            f"{library.name} {library.version} builds for no compute capability {wanted}",
            hint=f"valid: {', '.join(names)}; --runtime trt builds on the GPU itself",
        )
    return names[wanted]


def _bind_precisions(network: Any, config: Any, library: Library, precision: str) -> None:
    """For versions whose networks are not typed: bind the heavy layers to the types that the ONNX file gives them.

    Without a flag there is float32 alone. Casts and layers that only move numbers take no such binding, and int8 is
    bound by the quantisation around a layer.
    """
    if precision == "fp32":
        return
    module = library.module
    config.set_flag(getattr(module.BuilderFlag, precision.upper()))
    if precision == "int8":
        return
    config.set_flag(module.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for layer in _layers(network):
        if layer.type.name in HEAVY:
            dtype = layer.get_output(0).dtype
            layer.precision = dtype
            layer.set_output_type(0, dtype)


def _prove_types(network: Any, library: Library, precision: str, quantized: list[str]) -> str:
    """Errors: ProofError unless each heavy layer of the parsed network has the precision that was asked for.

    int8 is between a layer and the dequantisation of both its inputs, in the layers `quantized` of the file; all others
    are float32 then.
    """
    layers = list(_layers(network))
    heavy = [layer for layer in layers if layer.type.name in HEAVY]
    if not heavy:
        raise ProofError(f"the network that {library.name} parsed holds no convolution")
    kind = "typed" if library.is_typed else "kept"
    wanted = "fp32" if precision == "int8" else precision
    for layer in heavy:
        found = library.type_name(layer.get_output(0).dtype)
        if found != wanted:
            raise ProofError(f"{library.name} took {layer.name} as {found}, not {wanted}")
    if precision != "int8":
        return f"{len(heavy)} layers {kind} as {wanted}"
    restored = {layer.get_output(0).name for layer in layers if layer.type.name == "DEQUANTIZE"}
    within = [
        layer.name
        for layer in heavy
        if layer.num_inputs > 1 and all(layer.get_input(index).name in restored for index in range(2))
    ]
    if len(within) != len(quantized):
        raise ProofError(f"{library.name} took {len(within)} layers as int8, and the file has {len(quantized)}")
    return f"{len(within)} layers {kind} as int8, {len(heavy) - len(within)} as fp32"


def _prove_size(engine: bytes, model: onnx.ModelProto, *, must_fit: bool) -> str:
    """Errors: ProofError, if it must fit, for an engine so large that its weights are wider than asked for.

    It need not where an inspector can tell, since kernels may keep their weights in a larger form.
    """
    stored = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
    if must_fit and len(engine) > ROOM * stored + OVERHEAD:
        raise ProofError(f"the engine has {len(engine):,} bytes for {stored:,} of weights: they were widened")
    return f"{len(engine):,} bytes for {stored:,} of weights"


def inspected_precision(information: str, precision: str, int8_layers: int = 0) -> str:
    """What the engine inspector says of the heavy layers, in words.

    `information` is its JSON, whose fields differ by version. Errors: ProofError unless all of them compute in
    `precision`; of int8, `int8_layers` of them.
    """
    layers = json.loads(information).get("Layers", [])
    heavy = [layer for layer in layers if isinstance(layer, dict) and _is_heavy(layer)]
    if not heavy:
        raise ProofError("the engine's inspector shows no convolution", hint="it was built without DETAILED")
    if precision == "int8":
        found = sum(_shown_type(layer) == "int8" for layer in heavy)
        if found < int8_layers:
            raise ProofError(f"the engine computes {found} layers in int8, and the file has {int8_layers}")
        return f"the inspector shows int8 in {found} layers"
    for layer in heavy:
        shown = _shown_type(layer)
        if TYPES_SHOWN.get(shown, shown) != precision:
            raise ProofError(f"the engine computes {layer.get('Name')} in {shown or 'nothing known'}, not {precision}")
        if "tf32" in str(layer.get("TacticName", "")).lower() and precision == "fp32":
            raise ProofError(f"the engine computes {layer.get('Name')} in TF32, not fp32")
    return f"the inspector shows {precision} in {len(heavy)} layers"


TYPES_SHOWN = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}


def _is_heavy(layer: dict[str, Any]) -> bool:
    """Whether a layer of the inspector's multiplies by weights: Myelin's are not named convolution."""
    kind = str(layer.get("LayerType", "")).lower()
    return kind != "reformat" and ("Weights" in layer or "conv" in kind or "gemm" in kind)


def _shown_type(layer: dict[str, Any]) -> str:
    """The type of a layer's weights, or of its first input where the inspector keeps the weights to itself."""
    weights = layer.get("Weights")
    inputs = [tensor for tensor in layer.get("Inputs", []) if isinstance(tensor, dict)]
    # Up to 10 "Format/Datatype" is one text ("Row major linear FP16 format"), since 11 Format and DataType are two.
    texts = [weights.get("Type", "")] if isinstance(weights, dict) else []
    texts += [tensor.get("DataType", tensor.get("Format/Datatype", "")) for tensor in inputs[:1]]
    for text in texts:
        found = re.search(r"\b(float|fp32|half|fp16|bfloat16|bf16|int8|fp8)\b", str(text).lower())
        if found:
            return found[1]
    return ""


def _timing_cache(config: Any, path: Path | None) -> Any:
    """The cache of measured kernels from `path`, empty if there is none; None without a path."""
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as exc:
        raise StorageError(f"cannot read {path}: {exc.strerror or exc}") from exc
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise ArtifactError(f"{path} is no timing cache of this version and GPU", hint="remove it, or name another")
    return cache


def _monitor(module: Any, progress: Progress) -> Any:
    """The library's own progress monitor, as one of our tasks: the outermost phase's steps."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self._tasks: dict[str, Any] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                context = progress.task(f"building: {name}", steps, "steps")
                self._tasks[name] = (context, context.__enter__())

        def step_complete(self, name: str, step: int) -> bool:
            del step
            if name in self._tasks:
                self._tasks[name][1].advance(1)
            return True

        def phase_finish(self, name: str) -> None:
            if name in self._tasks:
                self._tasks.pop(name)[0].__exit__(None, None, None)

    return Monitor()


def _layers(network: Any) -> Iterator[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))
