# SPDX-License-Identifier: Apache-2.0
"""The pictures of docs/data.md: ``python docs/make_figures.py`` makes rooms.png and fill.png."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np

from mlr.data.colorize import colorize
from mlr.data.depth_files import read_depth, read_image
from mlr.data.synthetic.rooms import render

matplotlib.use("Agg")
from matplotlib import pyplot as plt

#: The real frame that the repository holds.
FRAME = Path(__file__).parents[1] / "examples" / "xtion_bookshelf"


def rooms(path: Path, rows: int = 2, columns: int = 4) -> None:
    """Draw some built-in scenes and their depth; near is blue and far is red."""
    figure, axes = plt.subplots(2 * rows, columns, figsize=(2.6 * columns, 3.9 * rows), layout="constrained")
    for i in range(rows * columns):
        image, depth = render(0, i, 288, 384)
        above, below = axes[2 * (i // columns)][i % columns], axes[2 * (i // columns) + 1][i % columns]
        above.imshow(image)
        shown = below.imshow(depth, cmap="jet", vmin=0.7, vmax=8)
        above.set_axis_off()
        below.set_axis_off()
    figure.colorbar(shown, ax=axes, shrink=0.4, label="depth, metres")
    figure.savefig(path, dpi=75)
    plt.close(figure)


def fill(path: Path, rgb: Path, depth_file: Path, unit: str = "mm") -> None:
    """Draw a frame, its depth and its filled depth beside one another; near is blue, far is red, missing is black."""
    image, depth = read_image(rgb), read_depth(depth_file, unit)
    filled = colorize(image, depth)
    colours = matplotlib.colormaps["jet"].with_extremes(bad="black")
    low, high = filled.min(), filled.max()
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    axes[0].imshow(image)
    axes[0].set_title("image")
    axes[1].imshow(np.ma.masked_equal(depth, 0), cmap=colours, vmin=low, vmax=high)
    axes[1].set_title(f"measured, {100 * (depth == 0).mean():.0f} % missing")
    shown = axes[2].imshow(filled, cmap=colours, vmin=low, vmax=high)
    axes[2].set_title("filled")
    for axis in axes:
        axis.set_axis_off()
    figure.colorbar(shown, ax=axes, shrink=0.8, label="depth, metres")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(folder: Path) -> None:
    """Make both."""
    folder.mkdir(parents=True, exist_ok=True)
    rooms(folder / "rooms.png")
    fill(folder / "fill.png", FRAME / "rgb.png", FRAME / "depth_mm.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "images"))
