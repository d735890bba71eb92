# SPDX-License-Identifier: Apache-2.0
"""Samples as text inside a page: images as JPEG, depth as 16-bit integers.

Depth d is stored as round(d / step), where step is the largest depth of the sample divided by 65535, so that it is off
by half a step at most: 0.08 mm for 10 m. 0 means unknown. Rows are stored as differences between neighbours, which zlib
packs well.
"""

from __future__ import annotations

import base64
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from mlr.report.figures import colour_range

#: Pixels of a depth map in a page: eight samples of pure noise take 1.9 MB then.
PIXELS = 45_000
#: Longest side of an image in a page.
IMAGE_SIDE = 320
JPEG_QUALITY = 80
LARGEST = 65535


def encode_sample(name: str, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    """A sample for JSON; samples.js reads it.

    Args:
        name: id of the frame.
        image: [H, W, 3] uint8.
        truth: [H, W] metres; NaN = unknown.
        prediction: [H, W] metres.
    """
    rows, columns = sampled_pixels(*truth.shape)
    maps = [
        np.nan_to_num(depth[np.ix_(rows, columns)].astype(np.float64), nan=0, posinf=0, neginf=0).clip(min=0)
        for depth in (truth, prediction)
    ]
    step = max(float(max(depth.max() for depth in maps)), 1e-6) / LARGEST
    low, high = colour_range(truth, prediction)
    return {
        "name": str(name),
        "image": _jpeg(image),
        "rows": rows.tolist(),
        "columns": columns.tolist(),
        "step": step,
        "low": low,
        "high": high,
        "truth": pack(np.rint(maps[0] / step).astype(np.uint16)),
        "prediction": pack(np.rint(maps[1] / step).astype(np.uint16)),
    }


def sampled_pixels(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that a page takes of a depth map: every pixel keeps a depth that is really there."""
    scale = min(1.0, (PIXELS / (height * width)) ** 0.5)
    rows, columns = (
        ((np.arange(count) + 0.5) * length / count).astype(int)
        for length in (height, width)
        for count in [max(1, int(length * scale))]
    )
    return rows, columns


def pack(values: np.ndarray) -> str:
    """Integers [H, W] of 16 bits as text: differences along the rows modulo 2^16, little endian, zlib, base64."""
    differences = np.diff(values, axis=1, prepend=np.uint16(0)).astype("<u2")
    return base64.b64encode(zlib.compress(differences.tobytes(), 9)).decode()


def _jpeg(image: np.ndarray) -> str:
    """An image as an address that holds it."""
    picture = Image.fromarray(image)
    picture.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
