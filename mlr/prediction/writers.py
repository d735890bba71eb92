# SPDX-License-Identifier: Apache-2.0
"""Depth maps as files: 16-bit PNG, numpy array, coloured picture."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mlr.data.depth_files import UNITS

#: Unit of depth PNGs, which the file declares in its text "depth_unit".
UNIT = "mm"
#: Deepest that 16 bits hold, in metres.
PNG_LIMIT = 65535 / UNITS[UNIT]
#: Of zlib. Its default, 6, makes a predicted depth map a fifth smaller in four times the time, which is more than a GPU
#: takes to predict it.
COMPRESSION = 2

#: Near is blue and far is red, as in the paper's Fig. 4.
COLOURS = "jet"
#: The bar's width in inches, and its height, whatever the map's size, so that its text grows with the map.
BAR, HEIGHT = 1.0, 4.8
SMALLEST_DPI = 50


def write_png(file: BinaryIO, depth: np.ndarray) -> None:
    """Write depth [H, W] in metres as a 16-bit PNG in millimetres; 0 = none, deeper than 65.535 m becomes 65.535 m."""
    text = PngInfo()
    text.add_text("depth_unit", UNIT)
    steps = np.rint(np.minimum(depth, PNG_LIMIT) * UNITS[UNIT]).astype(np.uint16)
    Image.fromarray(steps).save(file, "PNG", pnginfo=text, compress_level=COMPRESSION)


def write_npy(file: BinaryIO, depth: np.ndarray) -> None:
    """Write depth [H, W] in metres as a float32 array for ``numpy.load``."""
    np.save(file, depth.astype(np.float32))


def write_colour(file: BinaryIO, depth: np.ndarray, max_depth: float | None = None) -> None:
    """Write depth [H, W] in colours, pixel by pixel, with a bar in metres at its right.

    Args:
        file: open for writing.
        depth: metres; 0 = none, drawn black.
        max_depth: end of the scale, which then starts at 0; None = the range of this map.
    """
    known = depth[depth > 0]
    low, high = (0.0, max_depth) if max_depth else (known.min(), known.max()) if known.size else (0.0, 1.0)
    picture = Image.fromarray(np.hstack([painted(depth, low, high), scale_bar(len(depth), low, high)]))
    picture.save(file, "PNG", compress_level=COMPRESSION)


def painted(depth: np.ndarray, low: float, high: float) -> np.ndarray:
    """Depth [H, W] in colours, [H, W, 3] uint8; no depth is black."""
    colours = _colours(low, high).to_rgba(depth, bytes=True)[..., :3]
    colours[depth <= 0] = 0
    return colours


@lru_cache(maxsize=4)  # with --max-depth all pictures have the same
def scale_bar(height: int, low: float, high: float) -> np.ndarray:
    """A picture of the colours in metres, [height, W, 3] uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dpi = max(height / HEIGHT, SMALLEST_DPI)
    inches = BAR, (height + 0.5) / dpi  # Agg cuts to whole pixels
    figure = Figure(figsize=inches, dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.15, 0.04, 0.2, 0.89))
    axes.set_title("metres", loc="left")  # above the bar, where it cannot run into long numbers
    figure.colorbar(_colours(low, high), cax=axes)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _colours(low: float, high: float) -> Any:
    import matplotlib  # half a second, which only colours need
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(low, high, clip=True), matplotlib.colormaps[COLOURS])
