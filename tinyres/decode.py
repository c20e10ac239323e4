"""A picture file becomes the uint8 pixels a model takes: the same code for the training cache and for a served request.

It does not normalise: that is arithmetic of the model, inside the artifact.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from tinyres.errors import ImageError
from tinyres.files import read_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from tinyres.spec import Preprocess

MAX_PIXELS = 100_000_000
"""A picture that claims more is refused before its pixels are decoded (a decompression bomb, or a mistake)."""
MAX_BYTES = 256 * 2**20
"""A longer file is refused unread."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, by content and whatever the name. Pillow knows more, and hands some (EPS) to other programs."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def pixels_from_file(path: str | Path, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Decode a picture file to (S, S, 3) uint8 RGB. Errors: ImageError that names the file."""
    try:
        content = read_whole(Path(path), MAX_BYTES, error=ImageError)
    except ImageError as exc:
        if isinstance(exc.__cause__, IsADirectoryError):
            exc.hint = "Classifier.folder and predict take a folder for the pictures in it; this one may hold none"
        raise
    return pixels_from_bytes(content, preprocess, name=str(path))


def pixels_from_bytes(content: bytes, preprocess: Preprocess, *, name: str = "the picture") -> NDArray[np.uint8]:
    """Decode an encoded picture (JPEG, PNG, ...) to (S, S, 3) uint8 RGB. Errors: ImageError that says `name`."""
    with _reading(name), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"{name} has {image.width}x{image.height} pixels; valid: up to {MAX_PIXELS:,}")
        return pixels_from_image(image, preprocess, name=name)


def pixels_from_image(image: Image.Image, preprocess: Preprocess, *, name: str = "the picture") -> NDArray[np.uint8]:
    """Turn a Pillow image of any mode and size into (S, S, 3) uint8 RGB. Alpha is dropped, not blended.

    Errors: ImageError that says `name`; Pillow decodes late, so a file that it opened may still be cut short.
    """
    with _reading(name):
        return _fitted(_rgb(ImageOps.exif_transpose(image)), preprocess.image_size)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Pillow's decoders raise whatever their format code meets (struct.error, SyntaxError, ...) on broken files."""
    try:
        yield
    except ImageError:
        raise
    except Exception as exc:
        unknown = f"no picture format that is read here ({', '.join(FORMATS)})"
        reason = unknown if "cannot identify" in str(exc) else str(exc)
        raise ImageError(f"{name} is not a readable picture: {reason}") from exc


def pixels_from_array(array: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Fit a uint8 RGB array (H, W, 3) to (S, S, 3); one of that size is returned as it is. Errors: ImageError."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ImageError(f"the array is {array.dtype} {array.shape}; valid: uint8 (H, W, 3) RGB")
    size = preprocess.image_size
    return array if array.shape[:2] == (size, size) else _fitted(Image.fromarray(array), size)


def _fitted(image: Image.Image, size: int) -> NDArray[np.uint8]:
    if not all(image.size):
        raise ImageError(f"the picture has {image.width}x{image.height} pixels")
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        if width * height > MAX_PIXELS:
            raise ImageError(
                f"a picture of {image.width}x{image.height} is too narrow: it would become {width}x{height}"
            )
        # Rows, then columns. Asked for both at once, Pillow 13 takes columns first for some shapes: other pixels.
        image = image.resize((width, image.height), Image.Resampling.BICUBIC)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    pixels: NDArray[np.uint8] = np.array(image, dtype=np.uint8)
    return pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        # Pillow clips 16-bit gray to 255 when it converts; the high byte is the picture.
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
