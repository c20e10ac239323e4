"""Classify pictures on the server: python client.py PICTURE... [--grpc] [--host HOST], or --verify.

pip install 'tritonclient[http,grpc]' pillow
"""

import argparse
import base64
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tritonclient.utils import InferenceServerException

MODEL = "@model@"
GOLDEN = Path(__file__).parent / "models" / MODEL / "golden.json"
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow knows more, and hands some (EPS) to other programs."""
PORTS = {"http": 8000, "grpc": 8001}


def pixels(picture, size: int) -> np.ndarray:
    """(S, S, 3) uint8 RGB: the short side to `size` pixels, then the middle, as the model was trained."""
    image = ImageOps.exif_transpose(Image.open(picture, formats=FORMATS)).convert("RGB")
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, image.height), Image.Resampling.BICUBIC)  # rows, then columns, as in training
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.array(image, dtype=np.uint8)


def ask(images: np.ndarray, output: str, best: int = 0) -> np.ndarray:
    """The server's answer to (N, S, S, 3) pictures: numbers, or the `best` classes as value:index:label."""
    image = triton.InferInput("image", list(images.shape), "UINT8")
    image.set_data_from_numpy(images)
    wanted = [triton.InferRequestedOutput(output, class_count=best)]
    return client.infer(MODEL, [image], outputs=wanted).as_numpy(output)


def classify(paths: list[str], size: int) -> int:
    """Print the best classes of each picture; 2 if one cannot be read."""
    code, batch = 0, []
    for path in paths:
        try:
            batch.append((path, pixels(path, size)))
        except Exception as exc:  # noqa: BLE001 - Pillow's decoders raise whatever their format meets
            print(f"error: {path}: {exc}", file=sys.stderr)
            code = 2
    rows = ask(np.stack([image for _, image in batch]), "probabilities", best=5) if batch else []
    for (path, _), classes in zip(batch, rows):
        print(path)
        for row in classes:
            probability, _, label = row.decode().split(":", 2)
            print(f"  {float(probability):6.1%}  {label}")
    return code


def verify(size: int) -> int:
    """Hold decoding and the server's answers against the golden vectors of the proof; 3 if they differ."""
    try:
        known = json.loads(GOLDEN.read_text(encoding="utf-8"))
    except OSError as exc:
        print(f"error: {GOLDEN} lies beside this program in the repository: {exc.strerror}", file=sys.stderr)
        return 2
    pictures = known["pictures"]
    images = np.stack([pixels(io.BytesIO(base64.b64decode(picture["png"])), size) for picture in pictures])
    if any(image.tobytes() != base64.b64decode(picture["pixels"]) for image, picture in zip(images, pictures)):
        print("error: golden pictures are decoded to other pixels than in training", file=sys.stderr)
        return 3
    logits = ask(images, "logits").astype(np.float64)
    wanted = np.array([picture["artifact_logits"] for picture in pictures])
    rows = np.arange(len(pictures))
    leads = wanted.max(axis=1) - wanted[rows, logits.argmax(axis=1)]
    if not (leads <= 2 * known["limit"]).all():  # a tie within rounding may fall to either side
        print("error: a golden picture gets another class", file=sys.stderr)
        return 3
    difference = np.sqrt(np.mean((logits - wanted) ** 2))
    if not difference <= known["limit"]:
        print(f"error: logits differ by {difference:.1e}; valid: up to {known['limit']:.1e}", file=sys.stderr)
        return 3
    print(f"proven: {len(pictures)} golden pictures, logits within {difference:.1e} of {known['limit']:.1e}")
    return 0


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("pictures", nargs="*", metavar="PICTURE")
parser.add_argument("--verify", action="store_true", help="prove that the server answers as the file did")
parser.add_argument("--grpc", action="store_true", help="instead of HTTP")
parser.add_argument("--host", default="localhost", help="HOST or HOST:PORT")
asked = parser.parse_args()
if asked.verify == bool(asked.pictures):
    parser.error("name pictures, or --verify")
if asked.grpc:
    import tritonclient.grpc as triton
else:
    import tritonclient.http as triton
port = PORTS["grpc" if asked.grpc else "http"]
url = asked.host if ":" in asked.host else f"{asked.host}:{port}"
client = triton.InferenceServerClient(url)
try:
    about = client.get_model_metadata(MODEL, as_json=True) if asked.grpc else client.get_model_metadata(MODEL)
    side = int(about["inputs"][0]["shape"][1])
    sys.exit(verify(side) if asked.verify else classify(asked.pictures, side))
except (OSError, InferenceServerException) as exc:
    raise SystemExit(f"error: {url}: {exc}; sh serve.sh starts a server") from exc
