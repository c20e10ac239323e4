from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tinyres import decode
from tinyres.decode import pixels_from_bytes, pixels_from_file, pixels_from_image
from tinyres.errors import ImageError
from tinyres.spec import Preprocess

EIGHT = Preprocess(image_size=8)
RAMP = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def test_a_picture_of_the_right_size_keeps_every_pixel() -> None:
    assert (pixels_from_bytes(encoded(Image.fromarray(RAMP)), EIGHT) == RAMP).all()


def test_exif_orientation_is_undone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = encoded(Image.fromarray(RAMP), exif=exif)
    assert (pixels_from_bytes(turned, EIGHT) == RAMP[::-1, ::-1]).all()


def test_gray_becomes_three_equal_channels() -> None:
    gray = RAMP[:, :, 0]
    assert (pixels_from_bytes(encoded(Image.fromarray(gray)), EIGHT) == gray[:, :, None]).all()


def test_sixteen_bit_gray_keeps_its_high_byte() -> None:
    deep = (RAMP[:, :, 0].astype(np.uint16) << 8) + 77
    assert (pixels_from_bytes(encoded(Image.fromarray(deep)), EIGHT) == RAMP[:, :, :1]).all()


def test_alpha_is_dropped_not_blended() -> None:
    clear = np.dstack([RAMP, np.zeros((8, 8), dtype=np.uint8)])
    assert (pixels_from_bytes(encoded(Image.fromarray(clear)), EIGHT) == RAMP).all()


def test_the_center_of_a_wide_picture_is_taken() -> None:
    wide = np.concatenate([np.zeros((8, 4, 3), np.uint8), RAMP, np.zeros((8, 4, 3), np.uint8)], axis=1)
    assert (pixels_from_image(Image.fromarray(wide), EIGHT) == RAMP).all()


def test_shrinking_averages_instead_of_picking() -> None:
    checkered = np.indices((64, 64)).sum(axis=0) % 2 * 255
    pixels = pixels_from_image(Image.fromarray(checkered.astype(np.uint8)), EIGHT)
    assert np.abs(pixels.astype(int) - 127.5).max() < 4  # picking would give 0 or 255


def test_resizing_agrees_with_torchs_antialiased_bicubic() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((120, 80))
    ours = pixels_from_image(photo, Preprocess(image_size=32))
    planes = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].double()
    resized = torch.nn.functional.interpolate(planes, size=(32, 48), mode="bicubic", antialias=True)
    theirs = resized[0].permute(1, 2, 0)[:, 8:40].clamp(0, 255).numpy()
    assert np.abs(ours - theirs).max() < 2  # Pillow rounds between its two passes


def bicubic_rows(rows: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(H, W, C) to (H, size, C) by the definition: a bicubic of a = -0.5, as wide as what becomes one pixel."""
    width = rows.shape[1]
    scale = width / size
    centers = (np.arange(size)[:, None] + 0.5) * scale - 0.5
    distance = np.abs(np.arange(width)[None] - centers) / max(scale, 1)
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = -0.5 * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(np.rint(np.einsum("ow,hwc->hoc", weights, rows)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("width", "height"), [(83, 229), (229, 83), (50, 200), (20, 31)])
def test_rows_are_resized_before_columns_whatever_the_shape(width: int, height: int) -> None:
    """Pillow 13 takes columns first for tall pictures: the pixels would depend on its version."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    wide, high = (round(side * 64 / min(width, height)) for side in (width, height))
    resized = bicubic_rows(bicubic_rows(noise, wide).transpose(1, 0, 2), high).transpose(1, 0, 2)
    left, top = (wide - 64) // 2, (high - 64) // 2
    wanted = resized[top : top + 64, left : left + 64].astype(int)
    ours = pixels_from_image(Image.fromarray(noise), Preprocess(image_size=64))
    assert np.abs(ours - wanted).max() <= 1  # Pillow's weights have 22 bits
    assert (ours != wanted).mean() < 0.001


def test_a_picture_too_narrow_to_be_resized_whole_is_refused() -> None:
    with pytest.raises(ImageError, match="2x2000000 is too narrow: it would become 64x64000000"):
        pixels_from_image(Image.new("L", (2, 2_000_000)), Preprocess(image_size=64))


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]),
)
@settings(max_examples=60, deadline=None)
def test_any_mode_and_size_becomes_the_input(width: int, height: int, mode: str) -> None:
    pixels = pixels_from_image(Image.new(mode, (width, height)), EIGHT)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_any_bytes_are_a_picture_or_an_image_error(content: bytes) -> None:
    with pytest.raises(ImageError):
        pixels_from_bytes(content, EIGHT, name="noise")


@given(cut=st.integers(1, 10_000), place=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_a_damaged_jpeg_decodes_or_is_an_image_error(cut: int, place: int, value: int) -> None:
    content = bytearray(encoded(Image.fromarray(RAMP).resize((40, 40)), "JPEG"))
    content[place % len(content)] = value
    try:
        pixels = pixels_from_bytes(bytes(content[: max(1, len(content) - cut % 50)]), EIGHT)
    except ImageError:
        return
    assert pixels.shape == (8, 8, 3)


def test_a_text_file_named_jpg_says_so(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not a picture")
    with pytest.raises(ImageError, match=r"notes\.jpg is not a readable picture: no picture format"):
        pixels_from_file(path, EIGHT)


def test_a_picture_with_too_many_pixels_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 63)
    with pytest.raises(ImageError, match="has 8x8 pixels; valid: up to 63"):
        pixels_from_bytes(encoded(Image.fromarray(RAMP)), EIGHT)
