# SPDX-License-Identifier: Apache-2.0
"""Parameters and training speed of the decoders: ``python bench/decoders.py`` prints the table of docs/training.md.

A step is the network's forward pass, all 78 losses, the backward pass and Adam. The decoders of a backbone take turns,
after a step each for warming up; the median counts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import mlr
from mlr.models.decoders import DECODERS


def measure(backbone: str, batch: int, size: tuple[int, int], rounds: int, device: str) -> list[str]:
    """Rows of the table for a backbone; decoders that do not take it have none."""
    image, depth = torch.rand(batch, 3, *size, device=device), 1 + torch.rand(batch, 1, *size, device=device)
    criterion = mlr.MultiLoss()
    models: dict[str, tuple[mlr.DepthModel, torch.optim.Optimizer]] = {}
    seconds: dict[str, list[float]] = {}
    for name in DECODERS:
        try:
            model = mlr.DepthModel(backbone, pretrained=False, decoder=name)
        except ValueError as error:
            print(f"({error})")
            continue
        model = model.to(device).to(memory_format=torch.channels_last)
        models[name], seconds[name] = (model, torch.optim.Adam(model.parameters(), 1e-4)), []
    for _ in range(rounds + 1):
        for name, (model, optimizer) in models.items():
            start = time.perf_counter()
            optimizer.zero_grad()
            criterion(model(image), depth).total.backward()
            optimizer.step()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    rows = []
    for name, (model, _) in models.items():
        everything = sum(p.numel() for p in model.parameters()) / 1e6
        decoder = everything - sum(p.numel() for p in model.encoder.parameters()) / 1e6
        rate = 1 / statistics.median(seconds[name][1:])
        rows.append(f"| `{backbone}` | `{name}` | {decoder:.1f} M | {everything:.1f} M | {rate:.3g} |")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", default="tf_efficientnet_lite0,resnet50,vit_small_patch14_dinov2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", default="96x128")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    print(f"{args.batch} x {height} x {width}, {args.device}, {torch.get_num_threads()} threads")
    print("| backbone | decoder | decoder's parameters | all | steps/s |\n|---|---|---:|---:|---:|")
    for backbone in args.backbones.split(","):
        print("\n".join(measure(backbone, args.batch, (height, width), args.rounds, args.device)))


if __name__ == "__main__":
    main()
