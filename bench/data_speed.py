# SPDX-License-Identifier: Apache-2.0
"""How many images a second one core reads and augments, by data set, against a plain torchvision loader.

    python bench/data_speed.py                                    the table
    python bench/data_speed.py --out bench/results/data/cpu.json  and its file, for `make bench-report`

Every data set is written to a temporary folder in its published layout and read for training at 288 x 384. ``plain`` is
the loader that one writes with torchvision for the same files: Pillow or h5py, then resize, flip, rotation by up to 5
degrees and jitter, without any check. Before anything is timed, image and depth of both are compared without
augmentation: where they differ, no time is printed. Both take turns; a rate is images by CPU seconds of this process,
the best of some rounds, so that it holds beside other work.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import store
import torch
from data_layouts import LAYOUTS, Layout, Plain
from rich.console import Console
from tables import Table
from torchvision import tv_tensors
from torchvision.transforms import v2

from mlr.data import open_dataset
from mlr.data.datamodule import Transformed
from mlr.data.transforms import POLICIES

SIZE = (288, 384)
#: Result file of the committed table.
RESULTS = store.RESULTS / "data" / "cpu.json"


def torchvision_policy(augment: bool) -> v2.Compose:
    """Resize, flip, rotation and jitter of torchvision; the resize alone without augmentation."""
    steps: list[v2.Transform] = [v2.Resize(SIZE, antialias=True)]
    if augment:
        steps.append(v2.RandomHorizontalFlip(0.5))
        steps.append(v2.RandomRotation(5, interpolation=v2.InterpolationMode.BILINEAR))
    steps.append(v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True))
    if augment:
        steps.append(v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4))
    return v2.Compose(steps)


def plain_loader(plain: Plain, augment: bool) -> Callable[[int], Any]:
    """Index -> image and depth for training, by torchvision alone."""
    policy = torchvision_policy(augment)

    def load(index: int) -> Any:
        image, depth = plain(index)
        return policy(tv_tensors.Image(image), tv_tensors.Mask(depth))

    return load


def our_loader(layout: Layout, root: Path, policy: str) -> Callable[[int], Any]:
    """Index -> the sample that training gets."""
    dataset = open_dataset(layout.data, root, layout.split, **layout.options)
    samples = Transformed(dataset, POLICIES[policy](SIZE), seed=0, holes="mask")
    return lambda index: samples[0, index]


def difference(ours: Callable[[int], Any], plain: Callable[[int], Any], count: int) -> str:
    """Why the two loaders do not give the same frames; empty where they do."""
    for index in range(count):
        sample, (image, depth) = ours(index), plain(index)
        if sample["image"].shape != image.shape or sample["depth"].shape != depth.shape:
            return f"frame {index}: {list(sample['image'].shape)} against {list(image.shape)}"
        # torchvision takes the upper left of the pixels that meet where a mask is halved, we the nearest: depth may
        # come from a neighbour
        if not torch.allclose(sample["image"], image.as_subclass(torch.Tensor), atol=1.01 / 255):
            return f"frame {index}: images differ by {(sample['image'] - image).abs().max():.3g}"
        far = (sample["depth"].median() - depth.median()).abs()
        if far > 0.02 * depth.median().abs() + 0.02:
            return f"frame {index}: the median depths differ by {far:.3g} m"
    return ""


def rate(load: Callable[[int], Any], count: int) -> float:
    """Images by second of CPU time of one pass."""
    start = time.process_time()
    for index in range(count):
        load(index)
    return count / (time.process_time() - start)


def measure(layout: Layout, count: int, rounds: int) -> dict[str, Any]:
    """Rates of a layout: {"status", "reason"} where the loaders disagree, else also a rate of each loader."""
    with tempfile.TemporaryDirectory() as folder:
        root, plain = layout.write(Path(folder), count)
        reason = difference(our_loader(layout, root, "none"), plain_loader(plain, False), count)
        if reason:
            return {"name": layout.name, "status": "refused", "reason": reason}
        loaders = {
            "paper": our_loader(layout, root, "paper"),
            "none": our_loader(layout, root, "none"),
            "plain": plain_loader(plain, True),
            "plain_none": plain_loader(plain, False),
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(rounds):
            for name, load in loaders.items():
                rates[name].append(rate(load, count))
    return {"name": layout.name, "status": "ok", **{name: round(max(values), 1) for name, values in rates.items()}}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as people read them."""
    header = ("data set", "mlr", "plain torchvision", "ratio", "mlr, no augmentation", "plain, no augmentation")
    cells = [
        (
            row["name"],
            *(
                (f"{row['paper']:.0f}", f"{row['plain']:.0f}", f"{row['paper'] / row['plain']:.2f}",
                 f"{row['none']:.0f}", f"{row['plain_none']:.0f}")
                if row["status"] == "ok"
                else ("refused", row["reason"], "-", "-", "-")
            ),
        )
        for row in rows
    ]  # fmt: skip
    return Table("Images a second and core, 288 x 384", header, tuple(cells))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a loader was refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="result file to write")
    parser.add_argument("--only", help="only data sets whose name begins so, e.g. packed")
    parser.add_argument("--frames", type=int, default=12, help="frames of each data set (default: 12)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the best counts (default: 5)")
    args = parser.parse_args(argv)
    layouts = [layout for layout in LAYOUTS if layout.name.startswith(args.only or "")]
    if not layouts or args.frames < 1 or args.rounds < 1:
        parser.error(f"--only must begin one of {', '.join(x.name for x in LAYOUTS)}; --frames and --rounds are > 0")
    torch.set_num_threads(1)
    rows = []
    for layout in layouts:
        print(f"{layout.name} ...", file=sys.stderr, flush=True)
        rows.append(measure(layout, args.frames, args.rounds))
    Console(width=140).print(table(rows).rich())
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"meta": machine.metadata("cpu"), "rows": rows}, indent=1) + "\n")
    return int(any(row["status"] != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
