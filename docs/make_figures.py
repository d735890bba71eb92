# SPDX-License-Identifier: Apache-2.0
"""The pictures of the documentation: ``python docs/make_figures.py [RUN]``, or ``make figures``.

rooms.png, fill.png and masks.png show the data and losses-*.png what each loss sees of a real frame; curves.png,
samples.png and contributions.png are those of a training run, report-desktop.png and report-phone.png its page in a
browser.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch

from mlr.data.colorize import colorize
from mlr.data.depth_files import read_depth, read_image
from mlr.data.synthetic.rooms import render
from mlr.losses.kinds import KIND_TABLE, ScaleMaps, box_mean, valid_positions
from mlr.losses.masks import known_depth
from mlr.losses.reference import DOWNSAMPLE, resample, resample_mask
from mlr.losses.space import FAMILIES, SCALES
from mlr.report.command import FIGURES, report

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


def mask_scales(path: Path, depth_file: Path, unit: str = "mm") -> None:
    """Draw known depth at every scale, for both pyramids: a camera's, and 5 % of the pixels; black is unknown."""
    depth = torch.from_numpy(read_depth(depth_file, unit))[None, None]
    camera = known_depth(depth)
    drawn = torch.rand(depth.shape, generator=torch.Generator().manual_seed(0))
    thinned = camera & (drawn < 0.05 / camera.float().mean())
    colours = matplotlib.colormaps["jet"].with_extremes(bad="black")
    low, high = float(depth[camera].min()), float(depth[camera].max())
    masks = {"camera": camera, "thinned": thinned}
    rows = [(name, mask, way) for name, mask in masks.items() for way in DOWNSAMPLE]
    figure, axes = plt.subplots(len(rows), SCALES, figsize=(2.2 * SCALES, 1.95 * len(rows)), layout="constrained")
    for line, (name, mask, way) in zip(axes, rows, strict=True):
        for scale, axis in enumerate(line):
            valid = resample_mask(mask, scale, way)[0, 0]
            values = resample(depth.where(mask, 0), scale, way, mask)[0, 0]
            axis.imshow(np.ma.masked_where(~valid, values), cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            axis.set_title(f"{name}, {way}, k = {scale}: {100 * valid.float().mean():.0f} %", fontsize=8)
            axis.set_axis_off()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def stand_in(image: np.ndarray, depth: np.ndarray, window: int = 33, factor: float = 1.05) -> np.ndarray:
    """Depth as an unfinished network predicts it: without edges and 5 % too far."""
    filled = torch.from_numpy(colorize(image, depth))[None, None]
    return (factor * box_mean(filled, window))[0, 0].numpy()


def loss_frame(path: Path, image: np.ndarray, depth: np.ndarray, predicted: np.ndarray) -> None:
    """Draw the frame, its measured depth, the stand-in and their difference."""
    colours = matplotlib.colormaps["jet"].with_extremes(bad="black")
    known = np.ma.masked_equal(depth, 0)
    panels = {
        "image": (image, None), "true depth": (known, colours), "prediction": (predicted, colours),
        "prediction - truth": (np.ma.masked_array(predicted - depth, known.mask), "seismic"),
    }  # fmt: skip
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 2.6), layout="constrained")
    for axis, (title, (values, cmap)) in zip(axes, panels.items(), strict=True):
        low, high = (-0.3, 0.3) if cmap == "seismic" else (known.min(), predicted.max())
        shown = axis.imshow(values, cmap=cmap, vmin=low, vmax=high)
        axis.set_title(title)
        axis.set_axis_off()
        if cmap is not None:
            figure.colorbar(shown, ax=axis, shrink=0.8, label="m")
    figure.savefig(path, dpi=70)
    plt.close(figure)


def loss_maps(folder: Path, depth: np.ndarray, predicted: np.ndarray) -> None:
    """Draw what the losses are means of: a picture a family, a row a kind, a column a scale."""
    target, pred = torch.from_numpy(depth)[None, None], torch.from_numpy(predicted)[None, None]
    mask = known_depth(target)
    error, truth = torch.where(mask, pred - target, 0), torch.where(mask, target, 0)
    scales = []
    for scale in range(SCALES):
        valid = resample_mask(mask, scale)
        get_target = partial(resample, truth, scale, mask=mask)
        scales.append((valid, ScaleMaps(resample(error, scale, mask=mask), get_target, valid)))
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="black")
    for family in FAMILIES:
        kinds = [kind for kind in KIND_TABLE if kind.family == family]
        size = (2.2 * SCALES, 1.95 * len(kinds))
        figure, axes = plt.subplots(len(kinds), SCALES, figsize=size, layout="constrained", squeeze=False)
        for line, kind in zip(axes, kinds, strict=True):
            for scale, (axis, (valid, maps)) in enumerate(zip(line, scales, strict=True)):
                counted = valid_positions(valid, kind.reads)[0, 0]
                values = np.ma.masked_where(~counted, kind.values(maps)[0, 0])
                brightest = np.percentile(values.compressed(), 98)
                axis.imshow(values, cmap=colours, vmin=0, vmax=brightest, interpolation="nearest")
                axis.set_title(f"{kind.name}/{scale}: {kind.loss(maps)[0].item():.2g}", fontsize=9)
                axis.set_axis_off()
        figure.savefig(folder / f"losses-{family}.png", dpi=70)
        plt.close(figure)


def screenshots(folder: Path, page: Path) -> None:
    """Photograph the page of a run: the rebalancing in a wide window, the samples on a phone."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        print("the page is not photographed: that needs playwright")
        return
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("the page is not photographed: that needs Chromium")
        return
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--headless", "--no-sandbox", "--disable-gpu"])
        for name, section, size, dark in (
            ("desktop", "Rebalancing", (1100, 1120), False),
            ("phone", "Samples", (390, 900), True),
        ):
            window = browser.new_page(
                viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
            )
            window.goto(page.resolve().as_uri())
            window.wait_for_selector(".stage[data-sample]")
            window.get_by_label("period", exact=True).fill("13")
            window.locator(f"section[aria-label='{section}']").evaluate("e => e.scrollIntoView()")
            window.evaluate("document.activeElement.blur()")
            window.locator({"Rebalancing": "[data-loss='M17/3']", "Samples": ".stage"}[section]).hover()
            window.screenshot(path=folder / f"report-{name}.png")
        browser.close()


def main(folder: Path, run: Path | None = None) -> None:
    """Make the pictures of the data, and draw those of a training run."""
    folder.mkdir(parents=True, exist_ok=True)
    rooms(folder / "rooms.png")
    fill(folder / "fill.png", FRAME / "rgb.png", FRAME / "depth_mm.png")
    mask_scales(folder / "masks.png", FRAME / "depth_mm.png")
    image, depth = read_image(FRAME / "rgb.png"), read_depth(FRAME / "depth_mm.png", "mm")
    predicted = stand_in(image, depth)
    loss_frame(folder / "losses-frame.png", image, depth, predicted)
    loss_maps(folder, depth, predicted)
    if run is not None:
        report([run])
        for name in FIGURES:
            shutil.copy(run / f"{name}.png", folder / f"{name}.png")
        screenshots(folder, run / "report.html")


if __name__ == "__main__":
    main(Path(__file__).parent / "images", Path(sys.argv[1]) if len(sys.argv) > 1 else None)
