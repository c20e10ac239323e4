"""Triton's `onnxruntime` backend in Python: the server's package on PyPI comes without the one in C++.

All that is Triton's own (config, batching, warm-up, labels, both protocols) is the server's; this only runs the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend


class TritonPythonModel:
    """One instance of a model."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Nothing is completed: what is missing in config.pbtxt is missing."""
        return config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the file that the config names."""
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / config["default_model_filename"]
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.outputs = [output["name"] for output in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests that the server batched, in one run."""
        images = [backend.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        rows = self.session.run(self.outputs, {"image": np.concatenate(images)})
        ends = np.cumsum([len(image) for image in images])
        answers = []
        for image, end in zip(images, ends, strict=True):
            mine = [row[end - len(image) : end] for row in rows]
            tensors = [backend.Tensor(name, row) for name, row in zip(self.outputs, mine, strict=True)]
            answers.append(backend.InferenceResponse(tensors))
        return answers
