"""TensorRT versions that cannot run here, as far as a build is concerned: exactly the names each really has.

`tensorrt_apis.json` was read from NVIDIA's own Python bindings (the wheels are named in it), imported with empty
stand-ins for the libraries below them. A name that a version lacks is an AttributeError here, as there; what a call
does is acted.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from acted_cuda import ActedEngine, Cuda
from onnx import TensorProto

ENGINE = b"recorded engine "

APIS: dict[str, Any] = json.loads(Path(__file__).with_name("tensorrt_apis.json").read_text())
TYPES = {TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF", TensorProto.BFLOAT16: "BF16"}
KINDS = {"Conv": "CONVOLUTION", "Gemm": "MATRIX_MULTIPLY", "Cast": "CAST", "Relu": "ACTIVATION", "Add": "ELEMENTWISE"}
KINDS |= {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE"}


class Recorded:
    """An object of one class of one version: unknown names fail, both to read and to set."""

    def __init__(self, names: list[str], **acts: Any) -> None:
        unknown = acts.keys() - set(names)
        assert not unknown, f"the version has no {unknown}"
        object.__setattr__(self, "_names", frozenset(names))
        object.__setattr__(self, "calls", [])
        for name, act in acts.items():
            object.__setattr__(self, name, act)

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise AttributeError(name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, *arguments, *options.items()))

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._names:
            raise AttributeError(name)
        self.calls.append((name, value))
        object.__setattr__(self, name, value)


def library(
    version: str,
    *,
    widen: bool = False,
    fail: str = "",
    shown: str = "Float",
    layers: int = 1,
    cuda: Cuda | None = None,
    spoil: Callable[[np.ndarray], np.ndarray] = lambda logits: logits,
) -> ModuleType:
    """The module `tensorrt` of a version.

    An engine it builds is the ONNX file, and on `cuda` ONNX Runtime answers for it. `widen` makes it take half
    precision and int8 as float32, as a silent fallback would; `fail` is an error that it logs instead of building;
    `shown` is what its inspector calls the type of weights, in so many `layers`; `spoil` makes its answers wrong.
    """
    api = APIS[version]
    module = ModuleType("tensorrt")
    made: list[Recorded] = []
    module.__version__ = version  # type: ignore[attr-defined]
    module.made = made  # type: ignore[attr-defined]
    for name, members in api["enums"].items():
        setattr(module, name, enum.IntEnum(name, members))
    for name, names in api["classes"].items():
        setattr(module, name, type(name, (), dict.fromkeys(names)))

    def make(kind: str, **acts: Any) -> Recorded:
        object_ = Recorded(api["classes"][kind], **acts)
        made.append(object_)
        return object_

    class Logger:
        def __init__(self) -> None:
            pass

    severity = enum.IntEnum("Severity", {"INTERNAL_ERROR": 0, "ERROR": 1, "WARNING": 2, "INFO": 3})

    def config() -> Recorded:
        def create_timing_cache(content: bytes) -> Recorded:
            module.timing_cache = content  # type: ignore[attr-defined]
            return make("ITimingCache", serialize=lambda: b"measured")

        cache = make("ITimingCache", serialize=lambda: b"measured")
        return make(
            "IBuilderConfig",
            add_optimization_profile=lambda profile: 0,
            create_timing_cache=create_timing_cache,
            set_timing_cache=lambda cache, ignore_mismatch: not ignore_mismatch,
            get_timing_cache=lambda: cache,
        )

    def builder(logger: Any) -> Recorded:
        def create_network(flags: int = 0) -> Recorded:
            known = {1 << int(member) for member in module.NetworkDefinitionCreationFlag}
            assert flags == 0 or flags in known
            return (
                make("INetworkDefinition", num_layers=0, flags=flags)
                if "flags" in api["classes"]["INetworkDefinition"]
                else make("INetworkDefinition", num_layers=0)
            )

        def build(network: Recorded, config: Recorded) -> bytes | None:
            if fail:
                logger.log(severity.ERROR, fail)
                return None
            return ENGINE + bytes(module.parsed.SerializeToString())

        return make(
            "Builder",
            create_network=create_network,
            create_builder_config=config,
            create_optimization_profile=lambda: make("IOptimizationProfile"),
            build_serialized_network=build,
        )

    def parser(network: Recorded, logger: Any) -> Recorded:
        def parse(content: bytes) -> bool:
            model = onnx.load_model_from_string(content)
            module.parsed = model  # type: ignore[attr-defined]
            types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
            layers = []
            for node in model.graph.node:
                stored = next((types[name] for name in node.input if name in types), TensorProto.FLOAT)
                dtype = module.DataType["FLOAT" if widen else TYPES.get(stored, "FLOAT")]
                output = Recorded(["dtype", "name"], dtype=dtype, name=node.output[0])
                ignored = ("QuantizeLinear", "DequantizeLinear") if widen else ()
                kind = module.LayerType["SHUFFLE" if node.op_type in ignored else KINDS.get(node.op_type, "SHUFFLE")]
                inputs = [Recorded(["name"], name=name) for name in node.input]
                layers.append(
                    make(
                        "ILayer",
                        name=node.name,
                        type=kind,
                        num_outputs=1,
                        get_output=lambda index, output=output: output,
                        num_inputs=len(inputs),
                        get_input=inputs.__getitem__,
                    )
                )
            object.__setattr__(network, "num_layers", len(layers))
            object.__setattr__(network, "get_layer", layers.__getitem__)
            return True

        return make("OnnxParser", parse=parse, num_errors=0)

    def runtime(logger: Any) -> Recorded:
        def deserialize(content: bytes) -> Recorded | None:
            if not content.startswith(ENGINE):
                logger.log(severity.ERROR, "Error Code 1: Serialization (magic tag does not match)")
                return None
            assert cuda is not None
            engine = acted_by_onnxruntime(cuda, content[len(ENGINE) :], spoil)

            def inspector() -> Recorded:
                layer = {"Name": "conv1", "LayerType": "CaskConvolution", "Weights": {"Type": shown, "Count": 432}}
                text = json.dumps({"Layers": [layer] * layers})
                return make("EngineInspector", get_engine_information=lambda form: text)

            return make(
                "ICudaEngine",
                create_execution_context=lambda: make("IExecutionContext", **calls_of(engine)),
                create_engine_inspector=inspector,
            )

        return make("Runtime", deserialize_cuda_engine=deserialize)

    module.ILogger = Logger  # type: ignore[attr-defined]
    module.Builder = builder  # type: ignore[attr-defined]
    module.OnnxParser = parser  # type: ignore[attr-defined]
    module.Runtime = runtime  # type: ignore[attr-defined]
    return module


def acted_by_onnxruntime(
    cuda: Cuda, onnx_file: bytes, spoil: Callable[[np.ndarray], np.ndarray] = lambda logits: logits
) -> ActedEngine:
    """An engine on the acted device, for which ONNX Runtime computes."""
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    classes = session.get_outputs()[0].shape[1]
    return ActedEngine(
        cuda, lambda images: spoil(session.run(["logits"], {"image": images})[0]), classes=classes, most=4096
    )


def calls_of(engine: ActedEngine) -> dict[str, Any]:
    """The calls of a new context of the acted engine, by their names in the library."""
    context = engine.create_execution_context()
    return {name: getattr(context, name) for name in ("set_input_shape", "set_tensor_address", "execute_async_v3")}


def rtx_on(real: ModuleType, cuda: Cuda, onnx_file: bytes) -> ModuleType:
    """TensorRT for RTX with a device: the installed module, but plans of `onnx_file` are run by ONNX Runtime.

    Its runtime cache is the number of contexts that had to be compiled for, as text.
    """
    module = ModuleType("tensorrt_rtx")
    module.__dict__.update(vars(real))

    def make(kind: str, **acts: Any) -> Recorded:
        return Recorded(dir(getattr(real, kind)), **acts)

    def runtime(logger: Any) -> Recorded:
        engine = acted_by_onnxruntime(cuda, onnx_file)
        kept: list[bytes] = []

        def cache() -> Recorded:
            return make(
                "IRuntimeCache",
                deserialize=lambda blob: not kept.append(bytes(blob)),
                serialize=lambda: str(max([engine.contexts, *map(int, kept)])).encode(),
            )

        def context(config: Recorded) -> Recorded:
            assert ("cuda_graph_strategy", real.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE) in config.calls
            assert any(name == "set_runtime_cache" for name, *_ in config.calls)
            return make("IExecutionContext", **calls_of(engine))

        def deserialize(content: bytes) -> Recorded:
            return make(
                "ICudaEngine",
                create_runtime_config=lambda: make("IRuntimeConfig", create_runtime_cache=cache),
                create_execution_context=context,
            )

        return make("Runtime", deserialize_cuda_engine=deserialize)

    module.Runtime = runtime  # type: ignore[attr-defined]
    return module
