from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from tiny import small_spec

from tinyres.errors import BackendUnavailable
from tinyres.runtime.onnxruntime_cpu import PROVIDER, OnnxRuntimeCpu, open_session, quiet_options
from tinyres.runtime.runner import Precision


def test_the_library_writes_no_names_of_a_graph_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    reshape = helper.make_node("Reshape", ["image", "shape"], ["logits"], name="\x1b]0;owned\x07")
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, ["n"]) for name in ("image", "logits")]
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [3])
    graph = helper.make_graph([reshape], "graph", ends[:1], ends[1:], [shape])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    session = open_session(model.SerializeToString(), "a.onnx", [PROVIDER], quiet_options())
    with pytest.raises(BackendUnavailable, match="while running Reshape node"):
        OnnxRuntimeCpu(session, small_spec(), Precision("fp32", "fp32")).infer(np.zeros(5, np.uint8))
    assert capfd.readouterr() == ("", "")
