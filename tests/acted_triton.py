"""A server that reads a model repository and speaks Triton's two protocols; the real one is a container.

It is written from the protocols (KServe v2 with Triton's binary and classification extensions) and Triton's schema, not
from what our repository happens to hold: it obeys config.pbtxt, and answers through ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import struct
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

TYPES = {"UINT8": np.uint8, "FP32": np.float32}


def read_config(model: Path) -> model_config_pb2.ModelConfig:
    """config.pbtxt by Triton's own schema: an unknown field or a wrong type fails."""
    return text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


class Served:
    """One model of the repository, loaded as its config says."""

    def __init__(self, model: Path) -> None:
        self.config = read_config(model)
        assert self.config.name == model.name
        assert self.config.backend == "onnxruntime"
        (version,) = (path for path in model.iterdir() if path.is_dir() and path.name.isdigit())
        content = (version / self.config.default_model_filename).read_bytes()
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        for declared, found in (
            *zip(self.config.input, self.session.get_inputs(), strict=True),
            *zip(self.config.output, self.session.get_outputs(), strict=True),
        ):
            assert declared.name == found.name
            assert list(declared.dims) == found.shape[1:]  # without the batch
        self.labels = {
            output.name: (model / output.label_filename).read_text(encoding="utf-8").splitlines()
            for output in self.config.output
        }

    def metadata(self) -> dict[str, Any]:
        def told(tensor: Any) -> dict[str, Any]:
            kind = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
            return {"name": tensor.name, "datatype": kind, "shape": [-1, *tensor.dims]}

        inputs, outputs = map(told, self.config.input), map(told, self.config.output)
        return {"name": self.config.name, "inputs": list(inputs), "outputs": list(outputs)}

    def answer(
        self, name: str, shape: list[int], datatype: str, raw: bytes, output: str, count: int
    ) -> tuple[list[bytes] | Any, bytes, dict[str, Any]]:
        """The output's values, its raw bytes, and what describes it: (N, C) FP32, or (N, count) `value:index:label`."""
        assert shape[0] <= self.config.max_batch_size
        images = np.frombuffer(raw, dtype=TYPES[datatype]).reshape(shape)
        (rows,) = self.session.run([output], {name: images})
        if not count:
            return rows.ravel(), rows.tobytes(), {"name": output, "datatype": "FP32", "shape": list(rows.shape)}
        best = [(row, index) for row in rows for index in np.argsort(-row)[:count]]
        parts = [f"{row[index]:f}:{index}:{self.labels[output][index]}".encode() for row, index in best]
        raw = b"".join(struct.pack("<I", len(text)) + text for text in parts)
        return parts, raw, {"name": output, "datatype": "BYTES", "shape": [len(rows), min(count, rows.shape[1])]}


@contextlib.contextmanager
def serve_http(repository: Path) -> Iterator[str]:
    """HOST:PORT of a server in this process."""
    models = {path.name: Served(path) for path in repository.iterdir()}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, header: dict[str, Any], binary: bytes = b"") -> None:
            text = json.dumps(header).encode()
            self.send_response(200)
            if binary:
                self.send_header("Inference-Header-Content-Length", str(len(text)))
            self.send_header("Content-Length", str(len(text) + len(binary)))
            self.end_headers()
            self.wfile.write(text + binary)

        def do_GET(self) -> None:
            self.answer(models[self.path.split("/")[3]].metadata())  # /v2/models/NAME

        def do_POST(self) -> None:
            _, _, _, name, verb = self.path.split("/")
            assert verb == "infer"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            length = int(self.headers["Inference-Header-Content-Length"])
            request = json.loads(body[:length])
            (given,), (wanted,) = request["inputs"], request["outputs"]
            asked = wanted["parameters"]
            values, raw, output = models[name].answer(
                given["name"],
                given["shape"],
                given["datatype"],
                body[length : length + given["parameters"]["binary_data_size"]],
                wanted["name"],
                asked.get("classification", 0),
            )
            answer = {"model_name": name, "model_version": "1", "outputs": [output]}
            if asked.get("binary_data"):
                output["parameters"] = {"binary_data_size": len(raw)}
                self.answer(answer, raw)
            else:
                output["data"] = [value.decode() for value in values]
                self.answer(answer)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serve_grpc(repository: Path) -> Iterator[str]:
    """HOST:PORT of a server in this process."""
    models = {path.name: Served(path) for path in repository.iterdir()}

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
        def ModelMetadata(self, request: Any, context: Any) -> Any:
            return service_pb2.ModelMetadataResponse(**models[request.name].metadata())

        def ModelInfer(self, request: Any, context: Any) -> Any:
            (given,), (wanted,), (raw,) = request.inputs, request.outputs, request.raw_input_contents
            _, binary, output = models[request.model_name].answer(
                given.name,
                list(given.shape),
                given.datatype,
                raw,
                wanted.name,
                wanted.parameters["classification"].int64_param,
            )
            answer = service_pb2.ModelInferResponse(model_name=request.model_name, raw_output_contents=[binary])
            answer.outputs.add(**output)
            return answer

    server = grpc.server(futures.ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
