"""Translate an image with an exported model: ONNX Runtime, numpy and Pillow, no torch.

python translate.py MODEL.onnx INPUT OUTPUT
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def translate(session: onnxruntime.InferenceSession, pixels: np.ndarray) -> np.ndarray:
    """``[H, W, 3]`` uint8 to the same, with a model of either kind."""
    batch = pixels[np.newaxis]
    if session.get_inputs()[0].type == "tensor(uint8)":  # Exported with --image-io.
        return session.run(["translation"], {"picture": batch})[0][0]
    height, width = pixels.shape[:2]
    # Sides must be multiples of 4: continued as a mirror would, and cut off afterwards.
    batch = np.pad(batch, ((0, 0), (0, -height % 4), (0, -width % 4), (0, 0)), mode="reflect")
    numbers = batch.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    [translated] = session.run(["translation"], {"picture": numbers})[0]
    levels = np.clip(np.rint((translated + 1) * 127.5), 0, 255).astype(np.uint8)
    return levels.transpose(1, 2, 0)[:height, :width]


def main(model: str, source: str, target: str) -> None:
    """Translate one file."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["cyclegan"])["export"]
    image = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
    Image.fromarray(translate(session, np.asarray(image))).save(target)
    print(f"{source} ({about['from']}) -> {target} ({about['to']})")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
