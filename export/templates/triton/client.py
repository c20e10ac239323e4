"""Classify pictures on the server: python client.py PICTURE... [--grpc] [--host HOST].

pip install 'tritonclient[http,grpc]' pillow
"""

import argparse

import numpy as np
from PIL import Image, ImageOps
from tritonclient.utils import InferenceServerException

MODEL = "@model@"
PORTS = {"http": 8000, "grpc": 8001}


def pixels(path: str, size: int) -> np.ndarray:
    """(S, S, 3) uint8 RGB: the short side to `size` pixels, then the middle, as the model was trained."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, image.height), Image.Resampling.BICUBIC)  # rows, then columns, as in training
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.array(image, dtype=np.uint8)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("pictures", nargs="+", metavar="PICTURE")
parser.add_argument("--grpc", action="store_true", help="instead of HTTP")
parser.add_argument("--host", default="localhost", help="HOST or HOST:PORT")
asked = parser.parse_args()
if asked.grpc:
    import tritonclient.grpc as triton
else:
    import tritonclient.http as triton
port = PORTS["grpc" if asked.grpc else "http"]
url = asked.host if ":" in asked.host else f"{asked.host}:{port}"
client = triton.InferenceServerClient(url)
try:
    about = client.get_model_metadata(MODEL, as_json=True) if asked.grpc else client.get_model_metadata(MODEL)
    size = int(about["inputs"][0]["shape"][1])
    batch = np.stack([pixels(path, size) for path in asked.pictures])
    image = triton.InferInput("image", list(batch.shape), "UINT8")
    image.set_data_from_numpy(batch)
    best = triton.InferRequestedOutput("probabilities", class_count=5)
    answer = client.infer(MODEL, [image], outputs=[best]).as_numpy("probabilities")
except (OSError, InferenceServerException) as exc:
    raise SystemExit(f"error: {url}: {exc}") from exc
for path, rows in zip(asked.pictures, answer):
    print(path)
    for row in rows:  # value:index:label
        probability, _, label = row.decode().split(":", 2)
        print(f"  {float(probability):6.1%}  {label}")
