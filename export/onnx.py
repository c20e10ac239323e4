"""`--format onnx`: one self-contained file, checked for what an artifact promises before anything is proven of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

import tinyres
from tinyres import records
from tinyres.errors import ArtifactError, ProofError
from tinyres.export.graph import Floats, Input, build_graph
from tinyres.export.precisions import PRECISIONS
from tinyres.export.quantize import quantized_layers
from tinyres.runtime.contained import OPERATIONS, QUANTIZATION
from tinyres.runtime.metadata import KEY, SCHEMA, ArtifactMetadata, Stored, Target, read_metadata

if TYPE_CHECKING:
    from tinyres.checkpoint import Checkpoint


def onnx_from_checkpoint(checkpoint: Checkpoint, *, input_kind: Input = "image", precision: Floats = "fp32") -> bytes:
    """The serialized ONNX model of a checkpoint; equal checkpoints give equal bytes.

    Errors: ProofError for a weight that the precision cannot hold.
    """
    return describe(float_model(checkpoint, input_kind, precision), checkpoint, precision, input_kind=input_kind)


def float_model(checkpoint: Checkpoint, input_kind: Input = "image", precision: Floats = "fp32") -> onnx.ModelProto:
    """The ONNX model of a checkpoint, which does not say yet what it is. Errors: as `onnx_from_checkpoint`."""
    weights = {name: tensor.double().numpy() for name, tensor in checkpoint.tensors.items()}
    return build_graph(checkpoint.spec, weights, input_kind=input_kind, precision=precision)


def describe(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    precision: Stored,
    *,
    input_kind: Input = "image",
    target: Target | None = None,
) -> bytes:
    """The serialized model with the metadata of an artifact, made of `checkpoint`."""
    origin = checkpoint.origin
    metadata = ArtifactMetadata(
        schema=SCHEMA,
        tinyres=tinyres.__version__,
        spec=checkpoint.spec,
        precision=precision,
        input=input_kind,
        checkpoint_sha256=checkpoint.sha256,
        run=origin.run,
        recipe=origin.recipe,
        data_kind=origin.data_kind,
        target=target,
    )
    model.producer_version = tinyres.__version__
    facts = asdict(metadata)
    if target is None:
        del facts["target"]  # files of other precisions keep the bytes that they had before there was int8
    model.metadata_props.add(key=KEY, value=records.to_json(facts, indent=None))
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def check_file(content: bytes) -> ArtifactMetadata:
    """Hold the bytes to the promises of an artifact, and return what it says of itself.

    Errors: ProofError that names the broken promise; ArtifactError for no ONNX file, or metadata that are none.
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as exc:  # protobuf's DecodeError, by whatever name its implementation has here
        raise ArtifactError(f"it is no ONNX file: {exc}") from exc
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ProofError(f"the ONNX checker refuses the file: {str(exc).splitlines()[0]}") from exc
    metadata = read_metadata({entry.key: entry.value for entry in model.metadata_props}, place="the file")
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    promised = PRECISIONS[metadata.precision]
    if opsets != {"": promised.opset} or model.ir_version != promised.ir_version:
        raise ProofError(
            f"the file has opsets {opsets} and IR {model.ir_version}; promised: {promised.opset} and"
            f" {promised.ir_version}"
        )
    for value in (*model.graph.input, *model.graph.output):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise ProofError(f"the batch of {value.name} is frozen to {value.type.tensor_type.shape.dim[0].dim_value}")
    foreign = {node.op_type for node in model.graph.node} - OPERATIONS
    if metadata.precision == "int8":
        foreign -= QUANTIZATION
        require_quantized(model, metadata.target)
    if foreign:
        raise ProofError(f"the graph holds operations it should not: {', '.join(sorted(foreign))}")
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ProofError(f"the weight {tensor.name} lies outside the file")
        if not np.isfinite(onnx.numpy_helper.to_array(tensor).astype(np.float32)).all():
            raise ProofError(f"the weight {tensor.name} is not finite")
    return metadata


def require_quantized(model: onnx.ModelProto, target: Target | None) -> None:
    """Errors: ProofError for int8 that no layer is in, or that is not laid out as its target takes it."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    if target is None:
        raise ProofError("the file is int8 and does not say for which target")
    if not quantized_layers(model):
        raise ProofError("the file says int8, and no layer's weights are")
    wanted = onnx.TensorProto.UINT8 if target == "cpu" else onnx.TensorProto.INT8
    for node in model.graph.node:
        zero = values.get(node.input[2]) if node.op_type == "QuantizeLinear" else None
        if zero is not None and (zero.data_type != wanted or (target != "cpu" and numpy_helper.to_array(zero).any())):
            raise ProofError(f"{node.name} is not rounded as {target} takes it")
