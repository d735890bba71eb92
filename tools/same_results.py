# SPDX-License-Identifier: Apache-2.0
"""Says whether a refactoring changed a result: digests of what the program computes on fixed seeds.

    python tools/same_results.py before.json                 # at the old commit
    python tools/same_results.py after.json --compare before.json

The losses and gradients are those of every backend that runs here; a small training run, an evaluation and a prediction
go through the command lines. Only public names and commands are used, so the script runs at older commits too: copy it
there. Digests are equal only where every bit is. They hold for one machine, one number of threads and one version of
the packages.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from PIL import Image

import mlr
import mlr.cli

SIZES = [(1, 1), (1, 40), (17, 31), (45, 61), (96, 128)]
SPACES = ["all", "depth+gradient", "*/3-5", "D/0", "M17/3+Nr/0+cc/2"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
FRAME = Path(__file__).resolve().parents[1] / "examples" / "xtion_bookshelf"
#: Names that columns and keys had at older commits, and what they are called now.
OLD_NAMES = {"ard": "abs_rel", "srd": "sq_rel", "rmse_si": "silog", "eccv2020": "paper"}
TRAINING = {
    "backbone": "test_resnet", "decoder-channels": 32, "pretrained": "false", "size": "64x96", "train-length": 8,
    "val-length": 4, "epochs": 2, "batch-size": 2, "workers": 0, "device": "cpu", "threads": 1, "seed": 3,
    "periods-per-epoch": 2, "learning-rate": 1e-3,
}  # fmt: skip


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def tensor_digest(tensor: torch.Tensor) -> str:
    tensor = tensor.detach().cpu().contiguous()
    return digest(f"{tensor.dtype}{list(tensor.shape)}".encode() + tensor.flatten().view(torch.uint8).numpy().tobytes())


def losses() -> Iterator[tuple[str, str]]:
    """Losses, totals and gradients by backend, size, type, pyramid, space and weights."""
    for backend in ("reference", "cpp"):
        with mlr.backend(backend):
            for size in SIZES:
                for dtype in DTYPES:
                    for downsample in ("bicubic", "area"):
                        for selection in SPACES:
                            for weighting in ("equal", "drawn", "per image"):
                                name = f"{backend} {size[0]}x{size[1]} {dtype} {downsample} {selection} {weighting}"
                                yield name, one_loss(size, dtype, downsample, selection, weighting)


def one_loss(size: tuple[int, int], dtype: torch.dtype, downsample: str, selection: str, weighting: str) -> str:
    space = mlr.LossSpace(selection)
    generator = torch.Generator().manual_seed(size[0] * 1000 + size[1])
    target = 1 + 4 * torch.rand(2, 1, *size, generator=generator, dtype=torch.float64)
    pred = target + 0.3 * torch.randn(2, 1, *size, generator=generator, dtype=torch.float64)
    pred, target = pred.to(dtype).requires_grad_(), target.to(dtype)
    shape = {"equal": None, "drawn": (len(space),), "per image": (2, len(space))}[weighting]
    weights = None if shape is None else torch.rand(shape, generator=generator)
    total, values = mlr.multi_loss(pred, target, weights, space, downsample)
    (grad,) = torch.autograd.grad(total, pred, retain_graph=True)
    (grad_values,) = torch.autograd.grad(values.square().sum(), pred)
    out = mlr.MultiLoss(space, downsample)(pred, target, weights)
    (grad_module,) = torch.autograd.grad(out[0], pred)
    alone = mlr.multi_loss_terms(pred, target, space, downsample)
    results = (total, values, grad, grad_values, *out[:2], grad_module, alone)
    return digest("".join(map(tensor_digest, results)).encode())


def call(*arguments: Any) -> str:
    """What a command prints; its answer must be 0."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = mlr.cli.main([str(argument) for argument in arguments])
    if code:
        raise SystemExit(f"mlr {' '.join(map(str, arguments))} ended with {code}")
    return said.getvalue()


def table(path: Path) -> Iterator[tuple[str, str]]:
    """Digests of a CSV table's columns."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column in rows[0]:
        prefix, slash, key = column.rpartition("/")
        yield f"{path.name} {prefix}{slash}{OLD_NAMES.get(key, key)}", digest(repr([r[column] for r in rows]).encode())


def leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Digests of the results in a JSON record, by their place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{OLD_NAMES.get(key, key)}")
    else:
        yield name, digest(json.dumps(value).encode())


def scores(evaluation: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """Digests of the scores of every protocol."""
    for protocol, record in evaluation["protocols"].items():
        for key in ("images", "excluded", "metrics"):
            yield from leaves(record[key], f"{name} {OLD_NAMES.get(protocol, protocol)} {key}")


def run_folder(run: Path) -> Iterator[tuple[str, str]]:
    """Networks, tables and scores of a run."""
    for name in ("best.pt", "last.pt"):
        checkpoint = mlr.load_checkpoint(run / name)
        weights = "".join(f"{key}{tensor_digest(tensor)}" for key, tensor in sorted(checkpoint.model.items()))
        yield f"{name} weights", digest(weights.encode())
        yield from leaves(checkpoint.metrics, f"{name} metrics")
    for name in ("metrics.csv", "balancing.csv"):
        yield from table(run / name)
    record = json.loads((run / "run.json").read_text())
    for name in ("constant", "before", "after", "parameters", "steps", "epochs"):
        yield from leaves(record[name], f"run.json {name}")


def commands(folder: Path) -> Iterator[tuple[str, str]]:
    """A training run, its evaluation, a prediction and its evaluation, through the command lines."""
    run = folder / "run"
    flags = [word for name, value in TRAINING.items() for word in (f"--{name}", value)]
    call("train", *flags, "--out", run)
    yield from run_folder(run)
    hu = folder / "hu2019"
    call("train", *flags, "--out", hu, "--augment", "hu2019", "--losses", "hu", "--balancer", "relobralo")
    yield from ((f"hu2019 {name}", value) for name, value in run_folder(hu))

    shots, random = folder / "shots", np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("rgb", "depth"):
            (shots / split / name).mkdir(parents=True)
        shutil.copy(FRAME / "rgb.png", shots / split / "rgb" / "000.png")
        np.save(shots / split / "depth" / "000.npy", random.uniform(1, 6, (480, 640)).astype(np.float32))
    frame = ("--data", "folder", "--root", shots)
    for data in (("--data", "rooms", "--protocol", "full"), (*frame, "--protocol", "full,eccv2020,nyu-toolbox,bts")):
        scored = json.loads(call("evaluate", run, *data, "--device", "cpu", "--json"))
        yield from scores(scored, f"evaluate {data[1]}")
    call("predict", run, FRAME / "rgb.png", "--out", folder / "depth", "--format", "npy,png", "--device", "cpu")
    for file in sorted((folder / "depth").rglob("*.*")):
        pixels = np.load(file) if file.suffix == ".npy" else np.asarray(Image.open(file))
        yield f"predict {file.name}", digest(pixels.tobytes())
    scored = json.loads(call("evaluate", folder / "depth" / "npy", *frame, "--match", "order", "--json"))
    yield from scores(scored, "evaluate files")


def record() -> dict[str, str]:
    torch.set_num_threads(1)
    results = dict(losses())
    print(f"{len(results)} losses and gradients", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        results |= dict(commands(Path(folder)))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the file of digests to write")
    parser.add_argument("--compare", type=Path, help="digests of another commit; differences are an error")
    options = parser.parse_args()
    before = json.loads(options.compare.read_text()) if options.compare else None
    results = record()
    options.out.write_text(json.dumps(results, indent=0) + "\n")
    print(f"{len(results)} digests in {options.out}")
    if before is None:
        return 0
    differences = [name for name in {**before, **results} if before.get(name) != results.get(name)]
    for name in differences:
        kind = "is gone" if name not in results else "is new" if name not in before else "differs"
        print(f"{name} {kind}")
    print(f"{len(differences)} differences from {options.compare}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
