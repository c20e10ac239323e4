"""What holds of every input, tried on drawn ones: the same at every run, so that a failure is a change's."""

from __future__ import annotations

import io
import json
import math
import re
from contextlib import redirect_stdout, suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from tiny import ORIGIN

from tinyres import records
from tinyres.bench.gate import METRICS, parse_condition
from tinyres.checkpoint import load_state, load_weights, save_state, save_tensors
from tinyres.console import Console
from tinyres.data.layout import read_layout
from tinyres.decode import pixels_from_array, pixels_from_image
from tinyres.errors import DataError, UsageError
from tinyres.export.options import parse_batches
from tinyres.harmless import acts, shown
from tinyres.pictures import is_picture
from tinyres.recipes import DEMO, RECIPES, Recipe, override
from tinyres.runs import Epoch
from tinyres.spec import ModelSpec, Preprocess
from tinyres.units import parse_duration

# A drawn example costs milliseconds, not the 200 that is Hypothesis's bound on a machine that other work slows down.
steady = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

finite = st.floats(allow_nan=False, allow_infinity=False)
some = st.floats(0, 1e12)
share = st.floats(0, 1)
counts = st.integers(0, 10**12)
names = st.text(min_size=1, max_size=12).filter(lambda name: not acts(name))
specs = st.builds(
    lambda ids, words, mean, size: ModelSpec(
        class_ids=tuple(ids),
        class_names=tuple(words[: len(ids)]),
        blocks=(1, 2),
        widths=(8, 12),
        preprocess=Preprocess(image_size=size, mean=mean, std=(0.5, 0.25, 1e-3)),
    ),
    st.lists(names, min_size=2, max_size=5, unique=True),
    st.lists(names, min_size=5, max_size=5),
    st.tuples(finite, finite, finite),
    st.integers(8, 512),
)
epochs = st.builds(
    Epoch,
    *(counts, counts, st.booleans()),
    *(some, share, some, share),
    *(counts, some, some, some),
)


@given(specs)
@steady
def test_a_spec_with_any_names_survives_writing_and_reading(spec: ModelSpec) -> None:
    assert records.from_json(ModelSpec, records.to_json(spec), source="test") == spec


@given(st.lists(epochs, max_size=3))
@steady
def test_a_history_survives_writing_and_reading_bit_for_bit(history: list[Epoch]) -> None:
    text = records.to_json([{field.name: getattr(epoch, field.name) for field in fields(Epoch)} for epoch in history])
    assert records.from_json(list[Epoch], text, source="test") == history


tensors = arrays.arrays(
    st.sampled_from([np.float32, np.float16, np.float64, np.int64, np.uint8, np.bool_]),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Also where they hold NaN."""
    return (first.dtype, first.shape) == (second.dtype, second.shape) and (
        first.numpy().tobytes() == second.numpy().tobytes()
    )


@given(st.dictionaries(st.text("abc.019", min_size=1, max_size=8), tensors, max_size=4), specs)
@steady
def test_a_checkpoint_survives_writing_and_reading_bit_for_bit(
    tmp_path: Path, weights: dict[str, np.ndarray], spec: ModelSpec
) -> None:
    given_ = {name: torch.from_numpy(np.asarray(array)) for name, array in weights.items()}
    save_tensors(tmp_path / "a.safetensors", given_, spec, ORIGIN)
    found = load_weights(tmp_path / "a.safetensors")
    assert (found.spec, found.origin, found.tensors.keys()) == (spec, ORIGIN, given_.keys())
    assert all(same_bits(found.tensors[name], tensor) for name, tensor in given_.items())


# Optimizers key by number and by name; no two places in a tree have the same path here.
keys = st.integers(0, 99) | st.text("abc_", min_size=1, max_size=6)
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | finite | st.text(max_size=8) | tensors,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


def with_torch(node: object) -> object:
    if isinstance(node, (np.ndarray, np.generic)):
        return torch.from_numpy(np.asarray(node))
    if isinstance(node, dict):
        return {key: with_torch(value) for key, value in node.items()}
    return [with_torch(value) for value in node] if isinstance(node, list) else node


def alike(first: object, second: object) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return same_bits(first, second)
    if type(first) is not type(second):
        return False
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(alike(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(alike, first, second))
    return first == second


@given(st.dictionaries(keys, trees, max_size=4))
@steady
def test_a_training_state_comes_back_with_its_keys_types_and_bits(tmp_path: Path, tree: dict[object, object]) -> None:
    state = with_torch(tree)
    assert isinstance(state, dict)
    save_state(tmp_path / "last.safetensors", state)
    assert alike(load_state(tmp_path / "last.safetensors"), state)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 90), st.just(3))), st.integers(8, 40))
@steady
def test_an_array_of_any_size_becomes_pixels_of_the_models(array: np.ndarray, size: int) -> None:
    pixels = pixels_from_array(array, Preprocess(image_size=size))
    assert (pixels.shape, pixels.dtype) == ((size, size, 3), np.uint8)
    if array.min() == array.max():
        assert (pixels == array.min()).all()  # one colour stays that colour


@given(
    st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]),
    st.integers(1, 50),
    st.integers(1, 50),
)
@steady
def test_a_picture_of_any_mode_and_size_becomes_pixels_of_the_models(mode: str, width: int, height: int) -> None:
    pixels = pixels_from_image(Image.new(mode, (width, height)), Preprocess(image_size=16))
    assert (pixels.shape, pixels.dtype) == ((16, 16, 3), np.uint8)


class Listed:
    """A store of names alone."""

    def __init__(self, found: set[str], annotations: bytes) -> None:
        self.found, self.annotations = found, annotations

    def names(self) -> list[str]:
        return sorted(self.found)

    def read(self, name: str) -> bytes:
        return self.annotations if name.endswith("annotations.txt") else b"a\tant\nb"

    def state(self, name: str) -> str:
        return ""


parts = st.sampled_from(["train", "val", "valid", "a", "b", "c", "images", "", "..", ".h", "ünï", "\udcff", "x\ny"])
files = st.sampled_from(["1.png", "2.JPEG", "3.txt", "", "words.txt", "val_annotations.txt"])
trees_of_names = st.sets(
    st.builds(lambda folders, file: "/".join([*folders, file]), st.lists(parts, max_size=4), files)
)
annotations = st.lists(st.builds("{}\t{}".format, files, parts), max_size=3).map(
    lambda lines: "\n".join(lines).encode(errors="surrogateescape")
)


@given(trees_of_names, annotations)
@settings(steady, max_examples=300)
def test_any_tree_of_names_is_a_layout_that_uses_each_picture_once_or_a_data_error(
    found: set[str], said: bytes
) -> None:
    with suppress(DataError):
        layout = read_layout(Listed(found, said), place="here")
        used = [name for name, _ in (*layout.train, *layout.val)]
        assert len(used) == len(set(used))
        assert set(used) <= {name for name in found if is_picture(name)}
        assert {label for _, label in layout.train} == set(range(len(layout.class_ids)))


named = st.sets(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=2, max_size=30)
plain = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 30), min_size=2, max_size=5)


@given(plain, st.integers(0, 3))
@steady
def test_of_plain_class_folders_each_picture_is_in_one_split(classes: dict[str, int], wrapped: int) -> None:
    root = "wrap/" * wrapped
    found = {f"{root}{label}/{number}.png" for label, count in classes.items() for number in range(count)}
    try:
        layout = read_layout(Listed(found, b""), place="here")
    except DataError as exc:
        assert "no picture to validate on" in str(exc)  # noqa: PT017 - only where each class has but one
        assert set(classes.values()) == {1}
        return
    assert sorted(name for name, _ in (*layout.train, *layout.val)) == sorted(found)
    for label, class_id in enumerate(layout.class_ids):
        held = sum(one == label for _, one in layout.val)
        assert (held >= 1) == (classes[class_id] > 1)
        assert held < classes[class_id]


@given(st.lists(named, min_size=2, max_size=4), named, st.booleans())
@steady
def test_a_picture_trained_on_is_never_judged_on_when_others_are_added(
    classes: list[set[str]], more: set[str], wrapped: bool
) -> None:
    found = {f"class{label}/{name}.png" for label, names in enumerate(classes) for name in names}
    grown = {f"class{label}/{name}.png" for label, names in enumerate(classes) for name in names | more}
    before = read_layout(Listed(found, b""), place="here")
    wrap = "moved/" * wrapped
    after = read_layout(Listed({wrap + name for name in grown | {"new/1.png", "new/2.png"}}, b""), place="")
    trained = {name for name, _ in before.train}
    left = {f"class{label}" for label in range(len(classes)) if sum(one == label for _, one in before.train) == 1}
    judged = {name.removeprefix("moved/") for name, _ in after.val}
    # The one picture that was left to train on of a class may be held out when there is another to train on.
    assert {name for name in trained & judged if name.partition("/")[0] not in left} == set()


def test_about_a_tenth_of_many_pictures_is_held_out() -> None:
    found = {f"{label}/{number}.png" for label in "ab" for number in range(5000)}
    layout = read_layout(Listed(found, b""), place="here")
    for label in range(2):  # four standard deviations
        assert abs(sum(one == label for _, one in layout.val) - 500) < 4 * math.sqrt(5000 * 0.1 * 0.9)


ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
anything = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(
    ["\x1b[2J", "\x9b31m", "a\rb", "\x07", "\udcff", "\u202ex"]
)


@given(anything, st.booleans(), st.sampled_from(["utf-8", "latin-1", "ascii"]))
@steady
def test_an_answer_holds_nothing_that_a_terminal_obeys(text: str, as_json: bool, encoding: str) -> None:
    written = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(written, encoding=encoding, write_through=True)):
        Console(json=as_json).result({"name": text}, text)
        said = written.getvalue().decode(encoding)
    assert not ACTING.search(said)
    if as_json:
        assert json.loads(said) == {"name": text}


@given(anything)
@steady
def test_a_shown_name_is_one_line_of_utf8_and_a_plain_one_is_itself(text: str) -> None:
    seen = shown(text)
    assert seen.isprintable()
    seen.encode()
    assert seen == text or not text.isprintable()


field_names = [field.name for field in fields(Recipe) if field.name not in ("name", "about")]


@given(st.sampled_from(field_names), anything | st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,3})?(,[0-9]{1,3}){0,3}"))
@settings(steady, max_examples=200)
def test_any_value_of_a_recipes_field_is_taken_alone_or_refused_in_one_line(field: str, text: str) -> None:
    try:
        changed = override(DEMO, [f"{field}={text}"])
    except UsageError as exc:
        assert len(str(exc).splitlines()) == 1  # noqa: PT017
    else:
        others = [name for name in field_names if name != field]
        assert [getattr(changed, name) for name in others] == [getattr(DEMO, name) for name in others]


@given(st.sampled_from(sorted(RECIPES)), st.sampled_from(field_names))
@steady
def test_a_recipe_given_its_own_value_is_itself(name: str, field: str) -> None:
    value = getattr(RECIPES[name], field)
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    assert override(RECIPES[name], [f"{field}={text.lower() if isinstance(value, bool) else text}"]) == RECIPES[name]


@pytest.mark.parametrize("parse", [parse_condition, parse_batches, parse_duration])
@given(text=anything | st.from_regex(r"(p50|p99|accuracy|[0-9]{1,3}):?[<>@:,.]?[0-9]{1,3}(ms|%|m|h|:[0-9]{1,3})?"))
@settings(steady, max_examples=150)
def test_any_words_are_understood_or_refused_in_one_line(parse: object, text: str) -> None:
    try:
        parse(text)
    except UsageError as exc:
        assert len(str(exc).splitlines()) == 1  # noqa: PT017


@given(st.sampled_from(sorted(METRICS)), st.integers(0, 10**6), st.sampled_from("<>"), st.none() | st.integers(1, 512))
@steady
def test_a_condition_means_its_number_in_its_unit(metric: str, number: int, sign: str, batch: int | None) -> None:
    at = "" if batch is None else f"@{batch}"
    for unit, size in METRICS[metric].units.items():
        if metric in ("accuracy", "disturbed") and number * size > 1:
            continue
        condition = parse_condition(f"{metric}{at}{sign}{number}{unit}")
        assert (condition.metric, condition.batch, condition.above) == (metric, batch, sign == ">")
        assert condition.bound == number * size
