# SPDX-License-Identifier: Apache-2.0
"""How near `mlr predict` and `mlr evaluate` come to the time of their network alone.

    python bench/command_speed.py                                             the table
    python bench/command_speed.py --out bench/results/data/commands.json      and its file, for `make bench-report`

The frames are JPEG images of 480 x 640 with 16-bit PNG depth. ``network`` is :meth:`mlr.DepthModel.infer` on images in
memory, in batches as large as the command's. A command runs on few and on many frames; the difference leaves out its
start. All take turns, and the least time of some rounds counts. Before anything is timed, the depth that ``predict``
writes as npy and png is compared with what ``infer`` gives.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
import store
import torch
from data_layouts import LAYOUTS
from rich.console import Console
from tables import Table

from mlr.data import open_dataset
from mlr.data.depth_files import read_depth
from mlr.evaluation.command import evaluate
from mlr.models.checkpoints import save_checkpoint
from mlr.models.depth_model import DepthModel
from mlr.prediction.command import predict

SIZE = (288, 384)
#: Result file of the committed table.
RESULTS = store.RESULTS / "data" / "commands.json"
#: What is measured: name -> images in a batch and the command, of (checkpoint, folder of the frames, output).
COMMANDS: dict[str, tuple[int, Callable[[Path, Path, Path], int]]] = {
    "predict --format npy": (8, lambda net, root, out: predict(net, out, [str(root / "rgb")], "npy", quiet=True)),
    "predict --format png": (8, lambda net, root, out: predict(net, out, [str(root / "rgb")], "png", quiet=True)),
    "predict --format color": (8, lambda net, root, out: predict(net, out, [str(root / "rgb")], "color", quiet=True)),
    "evaluate": (1, lambda net, root, out: evaluate(net, "folder", root, depth_unit="mm", split="all", out=out)),
}


def quietly(function: Callable[[], Any]) -> float:
    """Seconds of a call, whose output is thrown away.

    Raises:
        RuntimeError: a command failed.
    """
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        start = time.perf_counter()
        code = function()
        seconds = time.perf_counter() - start
    if isinstance(code, int) and code:
        raise RuntimeError(f"a command ended with {code}: {said.getvalue()}")
    return seconds


def run_network(model: DepthModel, images: Sequence[torch.Tensor], batch: int) -> list[torch.Tensor]:
    """Depth of images in memory."""
    return [d for i in range(0, len(images), batch) for d in model.infer(images[i : i + batch], SIZE)]


def difference(checkpoint: Path, model: DepthModel, root: Path, images: Sequence[torch.Tensor], out: Path) -> str:
    """Why the command's files are not what the network gives; empty where they are."""
    quietly(lambda: predict(checkpoint, out, [str(root / "rgb")], "npy,png", quiet=True))
    for suffix, step in (("npy", 0.0), ("png", 0.001)):
        for path, depth in zip(sorted(out.rglob(f"*.{suffix}")), run_network(model, images, 8), strict=True):
            if not np.allclose(read_depth(path, None), depth[0].numpy(), rtol=1e-5, atol=0.51 * step):
                return f"{path.name} differs from what infer gives"
    return ""


def measure(backbone: str, few: int, many: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of the table: milliseconds a frame of the network alone and of the command."""
    torch.manual_seed(0)
    model = DepthModel(backbone, pretrained=False).eval()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, roots = save_checkpoint(Path(folder) / "best.pt", model, config={"size": "288x384"}), []
        for count in (few, many):
            (root := Path(folder) / f"{count}").mkdir()
            roots.append(LAYOUTS[0].write(root, count)[0])
        dataset = open_dataset("folder", roots[1], "all", unit="mm")
        images = [dataset[i]["image"].as_subclass(torch.Tensor) for i in range(many)]
        out = Path(folder) / "out"
        if reason := difference(checkpoint, model, roots[1], images, out):
            return [{"name": name, "status": "refused", "reason": reason} for name in COMMANDS]
        rows = []
        for name, (batch, command) in COMMANDS.items():
            seconds: dict[str, list[float]] = {"network": [], "few": [], "many": []}
            for _ in range(rounds):
                seconds["network"].append(quietly(partial(run_network, model, images, batch)))
                for size, root in zip(("few", "many"), roots, strict=True):
                    shutil.rmtree(out, ignore_errors=True)
                    seconds[size].append(quietly(partial(command, checkpoint, root, out)))
            best = {key: min(values) for key, values in seconds.items()}
            network, command_ms = 1e3 * best["network"] / many, 1e3 * (best["many"] - best["few"]) / (many - few)
            row = {"name": name, "status": "ok", "network_ms": round(network, 2), "command_ms": round(command_ms, 2)}
            if command_ms < network / 2:
                row |= {"status": "refused", "reason": "many frames took hardly longer than few: the machine was busy"}
            rows.append(row)
        return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as people read them."""
    cells = [
        (row["name"], f"{row['network_ms']:.1f}", f"{row['command_ms']:.1f}",
         f"{row['command_ms'] / row['network_ms']:.2f}")
        if row["status"] == "ok"
        else (row["name"], "refused", row["reason"], "-")
        for row in rows
    ]  # fmt: skip
    return Table(
        "Milliseconds a frame of 480 x 640", ("command", "network alone", "whole command", "ratio"), tuple(cells)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where the command gives other depth than the network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="result file to write")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="a small one leaves least time to hide in")
    parser.add_argument("--few", type=int, default=8, help="frames of the short runs (default: 8)")
    parser.add_argument("--many", type=int, default=40, help="frames of the long runs (default: 40)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the best counts (default: 5)")
    args = parser.parse_args(argv)
    if not 0 < args.few < args.many or args.rounds < 1:
        parser.error("--few, --many and --rounds must be positive, and --many more than --few")
    rows = measure(args.backbone, args.few, args.many, args.rounds)
    Console(width=120).print(table(rows).rich())
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        meta = machine.metadata("cpu") | {"backbone": args.backbone}
        args.out.write_text(json.dumps({"meta": meta, "rows": rows}, indent=1) + "\n")
    return int(any(row["status"] != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
