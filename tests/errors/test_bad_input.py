"""Bad input that was neither read nor refused once, each by its name. `make fuzz` found most of it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from drawn_results import ALL, FP32, row
from fuzzing import zips
from tiny import write_pictures
from typer.testing import CliRunner

from tinyres import records
from tinyres.bench import gate, results
from tinyres.bench.reports.page import page
from tinyres.cli import app, asked
from tinyres.console import Console
from tinyres.data.dataset import open_dataset
from tinyres.data.layout import read_layout
from tinyres.data.sources import find_source
from tinyres.data.store import FolderStore, ZipStore
from tinyres.describe import describe
from tinyres.errors import ArtifactError, DataError, InputError, TinyresError, UsageError
from tinyres.export.certificate import read_certificate
from tinyres.export.options import parse_batches, parse_sizes
from tinyres.harmless import shown
from tinyres.pictures import find_pictures
from tinyres.recipes import DEMO, find_recipe, override
from tinyres.runtime.metadata import ArtifactMetadata
from tinyres.runtime.passport import BuildOptions, Passport, Sidecar, here, read_passport, require_fit, require_proven
from tinyres.runtime.tensorrt_library import Library, Messages
from tinyres.seed.importing import import_seed, read_history
from tinyres.spec import ModelSpec, Preprocess

DEEP = "[" * 100_000 + "]" * 100_000
HISTORY = '{"train_loss": [%s], "train_acc": [0.1], "val_loss": [1], "val_acc": [0.2], "lr": [0.1]}'


# JSON


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 50_000 + "1" + "}" * 50_000])
def test_json_nested_without_end_is_an_input_error_wherever_json_is_read(text: str, tmp_path: Path) -> None:
    path = tmp_path / "fp32.engine.json"
    path.write_text(text)
    path.with_name("fp32.engine").write_bytes(b"engine")
    for read in (describe, results.load, lambda path: find_recipe(str(path))):
        with pytest.raises(InputError, match=r"is not JSON|is damaged"):
            read(path)
    with pytest.raises(ArtifactError, match="holds no passport"):
        read_passport(path.with_name("fp32.engine"))
    with pytest.raises(TinyresError, match="is not proven"):
        require_proven(path.with_name("fp32.engine"))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_no_record_could_be_written_with_is_refused_by_its_place(number: str, tmp_path: Path) -> None:
    path = tmp_path / "training_history.json"
    path.write_text(HISTORY % number)
    with pytest.raises(InputError, match=r"train_loss\.0 is no finite number"):
        read_history(path)


def test_a_field_called_like_a_second_message_stays_in_the_first_ones_line() -> None:
    with pytest.raises(InputError) as caught:
        records.from_json(dict[str, int], '{"a\\nerror: all is lost\\u001b[2J": "x"}', source="s")
    assert len(str(caught.value).splitlines()) == 1
    assert "\x1b" not in str(caught.value)


def test_a_version_of_a_schema_that_is_text_stays_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": "a\\u0085b"}')
    with pytest.raises(InputError, match="has version 'a") as caught:
        results.load(tmp_path / "results.json")
    assert len(str(caught.value).splitlines()) == 1


def test_a_history_with_an_accuracy_beyond_all_numbers_is_described(tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text('{"train_loss": [], "val_acc": [0.5, 1%s, NaN]}' % ("0" * 400))
    assert describe(tmp_path / "h.json").facts == {"epochs": "3", "best": "50.00% top-1"}


def test_golden_vectors_of_no_pictures_are_an_artifact_error(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "a.golden.npz", pixels=np.zeros(()), exact=np.zeros(3))
    with pytest.raises(ArtifactError, match="is not a file of golden vectors"):
        describe(tmp_path / "a.golden.npz")


def test_golden_vectors_with_a_header_without_end_are_refused_in_one_line(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}".ljust(65_535)
    with zipfile.ZipFile(tmp_path / "a.golden.npz", "w") as archive:
        archive.writestr("pixels.npy", b"\x93NUMPY\x01\x00\xff\xff" + header + bytes(8))
    with pytest.raises(ArtifactError, match="is not a file of golden vectors") as caught:
        describe(tmp_path / "a.golden.npz")
    assert len(str(caught.value).splitlines()) == 1


# Recipes


@pytest.mark.parametrize("text", ["[" * 3000, "9" * 5000, "{" * 3000, "[1," * 3000])
def test_a_recipes_value_that_json_cannot_hold_is_refused_as_text(text: str) -> None:
    with pytest.raises(UsageError, match="epochs cannot be"):
        override(DEMO, [f"epochs={text}"])


def test_an_assignment_without_equals_stays_in_one_line() -> None:
    with pytest.raises(UsageError, match="expected field=value") as caught:
        override(DEMO, ["lr\nerror: x"])
    assert len(str(caught.value).splitlines()) == 1


# Zips and folders


@pytest.fixture
def members(tmp_path: Path) -> list[zips.Member]:
    write_pictures(tmp_path / "p" / "train", classes=2, each=3)
    found = sorted((tmp_path / "p").rglob("*.png"))
    return [
        zips.Member(str(path.relative_to(tmp_path / "p")).encode(), zips.deflated(path.read_bytes()), zips.DEFLATED)
        for path in found
    ]


@pytest.mark.parametrize("method", [zips.DEFLATED, zips.BZIP2, zips.LZMA])
def test_a_member_that_swells_past_its_claim_takes_no_memory(
    tmp_path: Path, method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    monkeypatch.setattr(zips, "HUGE", 96 * 2**20)
    bomb = zips.bomb.__wrapped__(method)
    flags = 0x802 if method == zips.LZMA else 0x800
    path = tmp_path / "bomb.zip"
    path.write_bytes(zips.written([zips.Member(b"a.png", bomb, method, size=100, crc=0, flags=flags)]))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"cannot read a\.png"):
        ZipStore(path).read("a.png")
    assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    tracemalloc.stop()


def test_a_method_that_inflates_all_at_once_is_refused_with_those_that_do_not(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", b"picture")
    with pytest.raises(DataError, match="compression method 12; valid: stored or deflated"):
        ZipStore(path).read("a.png")


def test_a_picture_that_is_in_a_zip_twice_is_one_picture(tmp_path: Path, members: list[zips.Member]) -> None:
    path = tmp_path / "twice.zip"
    path.write_bytes(zips.written([*members, members[0], members[0]]))
    names = ZipStore(path).names()
    assert len(names) == len(set(names)) == len(members)


def test_a_picture_named_twice_in_the_annotations_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", classes=2, each=2)
    first = sorted(path.name for path in (tmp_path / "train").iterdir())[0]
    write_pictures(tmp_path / "val", classes=2, each=1)
    picture = next((tmp_path / "val").rglob("*.png")).name
    (tmp_path / "val" / "val_annotations.txt").write_text(f"{picture}\t{first}\n" * 2)
    with pytest.raises(DataError, match="line 2 of here names a picture again"):
        read_layout(FolderStore(tmp_path), place="here")


@pytest.mark.parametrize("name", ["caf\udce9", "a\nerror: b", "\x1b[2Ja", "\u202ea"])
def test_a_class_folder_whose_name_no_record_or_terminal_takes_is_refused_with_what_mends_it(
    tmp_path: Path, name: str
) -> None:
    write_pictures(tmp_path / "set", classes=2, each=3)
    next((tmp_path / "set").iterdir()).rename(tmp_path / "set" / name)
    with pytest.raises(DataError, match="has no name that can be shown") as caught:
        open_dataset(str(tmp_path / "set"), image_size=16, cache_dir=tmp_path / "cache")
    assert caught.value.hint == "rename it"
    assert len(str(caught.value).splitlines()) == 1


def test_a_broken_picture_whose_name_is_no_utf8_is_left_out_and_listed(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "set", classes=2, each=4)
    (next(folder.iterdir()) / "\udcff\n.png").write_bytes(b"no picture")
    manifest = open_dataset(str(folder), image_size=16, cache_dir=tmp_path / "cache").manifest
    (left_out,) = manifest.unreadable
    assert left_out.name.endswith("/\\udcff\\n.png")
    assert shown(left_out.reason) == left_out.reason


def test_a_home_of_nobody_is_no_such_folder() -> None:
    with pytest.raises(DataError, match="there is no such folder or zip"):
        find_source("~nobody-of-that-name/pictures")


# Passports


def a_passport(**changes: object) -> Passport:
    spec = ModelSpec(class_names=("a", "b"), class_ids=("1", "2"), preprocess=Preprocess(image_size=16))
    metadata = ArtifactMetadata(1, "0", spec, "fp32", "image", "0" * 64, "r", "seed", "shapes")
    options = BuildOptions((1, 2, 3), None, None, version_compatible=True, hardware_compatible=False)
    fields = ("tensorrt", "10.13.2", "8.6", "", "", here(), options, "0" * 64, "0" * 64, "layers", metadata)
    return replace(Passport(*fields), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "new"},
        {"version": "²"},
        {"version": "9" * 5000},
        {"version": "10.\n1"},
        {"compute_capability": "8"},
        {"compute_capability": "a.b"},
        {"compute_capability": "8.6.1"},
        {"compute_capability": "٣.٣"},
        {"options": BuildOptions((3, 2, 1), None, None, version_compatible=False, hardware_compatible=False)},
    ],
)
def test_a_passport_that_names_no_version_or_gpu_is_an_artifact_error(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    sidecar = asdict(Sidecar(a_passport()))
    options = changes.pop("options", None)
    sidecar["passport"] |= changes | ({"options": asdict(options)} if isinstance(options, BuildOptions) else {})
    (tmp_path / "a.engine").write_bytes(b"engine")
    (tmp_path / "a.engine.json").write_text(json.dumps(sidecar))
    with pytest.raises(ArtifactError, match=r"the passport in a\.engine\.json is damaged"):
        read_passport(tmp_path / "a.engine")


def test_versions_with_words_in_them_are_compared_by_their_numbers() -> None:
    library = Library("tensorrt", SimpleNamespace(__version__="10.14.0.post12"), None, Messages())
    require_fit(a_passport(), library, None)
    with pytest.raises(TinyresError, match=r"was built for tensorrt 10\.15"):
        require_fit(a_passport(version="10.15.0b6"), library, None)


def test_a_certificate_or_passport_of_no_name_is_an_artifact_error() -> None:
    with pytest.raises(ArtifactError, match="there is no artifact"):
        read_certificate(Path())
    with pytest.raises(ArtifactError, match="there is no engine"):
        read_passport(Path())


# Results of a bench


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"samples_ns": [', '"samples_ns": [0, '),
        ('"samples_ns": [', f'"samples_ns": [{2**200}, '),
        ('"batch": 4,', '"batch": 0,'),
        ('"clients": 2,', '"clients": -2,'),
        ('"import_s": 0.2', '"import_s": -0.2'),
        ('"gained": 10', '"gained": 10000'),
        ('"images": 1000,\n        "correct"', '"images": 0,\n        "correct"'),
        ('"artifact_bytes": ', '"artifact_bytes": -'),
    ],
)
def test_results_that_cannot_have_been_measured_are_refused(tmp_path: Path, old: str, new: str) -> None:
    text = records.to_json(ALL)
    assert old in text
    (tmp_path / "results.json").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match="can be no measurement"):
        results.load(tmp_path / "results.json")


def test_blocks_without_runs_are_refused() -> None:
    with pytest.raises(UsageError, match="0 runs"):
        results.Block(0, 1.0, [])


def test_a_backends_name_does_not_leave_its_attribute_in_the_page() -> None:
    odd = replace(row("onnxruntime-cpu fp32", p50_ms=3), backend='"><script>alert(1)</script>')
    assert "<script" not in page(replace(ALL, rows=[odd, FP32]))


def test_a_condition_over_results_without_batches_is_not_met_by_chance() -> None:
    assert gate.failures(replace(ALL, batches=[], rows=[FP32]), [gate.parse_condition("p50>100s")], None) == []
    (said,) = gate.failures(replace(ALL, batches=[], rows=[FP32]), [gate.parse_condition("p50@7>100s")], None)
    assert "was not measured" in said


@pytest.mark.parametrize("text", ["p50@" + "9" * 5000 + ">5ms", "p50@٣>5ms", "p50>٣ms"])
def test_a_batch_or_bound_that_is_no_number_of_ours_is_no_condition(text: str) -> None:
    with pytest.raises(UsageError, match="is no condition"):
        gate.parse_condition(text)


@pytest.mark.parametrize("text", ["9" * 5000, "0001:2:" + "9" * 5000, "٣"])
def test_a_batch_size_of_thousands_of_digits_is_refused(text: str) -> None:
    for parse in (parse_sizes, parse_batches):
        with pytest.raises(UsageError, match="batches are whole numbers from 1 to 4096"):
            parse(text)


# Lists of names and classes


def test_a_line_without_end_is_no_list_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "LONGEST_NAME", 100)
    (tmp_path / "names.txt").write_bytes(b"a.png\n" + b"x" * 101)
    with pytest.raises(InputError, match="a line of it is longer than 100 bytes"):
        list(asked.asked_pictures([], str(tmp_path / "names.txt")).pictures)


def test_a_stdin_without_end_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "MAX_BYTES", 3 * 2**20)
    with Path("/dev/zero").open("rb") as endless:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=endless))
        with pytest.raises(InputError, match="what is on stdin is no picture"):
            asked.asked_pictures(["-"], None)


def test_a_list_of_names_whose_name_has_a_nul_is_an_input_error() -> None:
    with pytest.raises(InputError, match="cannot read the names in"):
        list(asked.asked_pictures([], "a\0b").pictures)


@pytest.mark.parametrize("name", ["a\0/*", "a\0[b]", "*/\0*"])
def test_a_pattern_with_a_nul_is_a_name_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    assert list(find_pictures([str(tmp_path / name)])) == [tmp_path / name]


def test_classes_that_are_no_text_are_a_usage_error(tmp_path: Path) -> None:
    import torch
    from seed_network import seed_network

    torch.save(seed_network(classes=2, blocks=(1, 1, 1, 1), widths=(2, 3, 4, 5)).state_dict(), tmp_path / "seed.pth")
    (tmp_path / "classes.txt").write_bytes(b"caf\xe9\nb\n")
    with pytest.raises(UsageError, match=r"is no UTF-8 text: .* at byte 3"):
        import_seed(tmp_path / "seed.pth", runs=tmp_path / "runs", classes=tmp_path / "classes.txt")


# Command lines and answers


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plot", "--out", "results.json"], "names no kind of picture"),
        (["plot", "--out", "/dev/null"], "names no kind of picture"),
        (["data", "prepare", "--data", "PICTURES", "--image-size", "16", "--cache", "x" * 300], "File name too long"),
        (["info", "a\0b"], "there is nothing at|embedded null"),
        (["eval", "~nobody-of-that-name"], "~nobody-of-that-name"),
        (["verify", ""], "there is no artifact"),
    ],
)
def test_odd_words_on_the_command_line_are_no_defect(
    cli: CliRunner,
    picture_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [str(picture_folder) if word == "PICTURES" else word for word in arguments]
    result = cli.invoke(app, words)
    assert result.exit_code == 2
    assert re.search(said, result.stderr)
    assert "defect of tinyres" not in result.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_json_on_a_stdout_of_few_characters_stays_json(encoding: str) -> None:
    said = io.BytesIO()
    names = {"name": "café \U0001f600 \udcff \u4e2d", "epoch": 1}
    with redirect_stdout(io.TextIOWrapper(said, encoding=encoding, write_through=True)):
        Console(json=True).result(names, "")
        assert json.loads(said.getvalue().decode(encoding)) == names
