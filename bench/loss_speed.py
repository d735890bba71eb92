# SPDX-License-Identifier: Apache-2.0
"""How fast are the 78 losses and their gradient here, and against what?

    python bench/loss_speed.py                          everything that is here; some minutes, progress shown
    python bench/loss_speed.py --quick                  under a minute
    python bench/loss_speed.py --skip authors,reference
    python bench/loss_speed.py --compile                torch.compile too, which compiles for minutes
    python bench/loss_speed.py --mask kinect            depth with holes; ones, kinect or lidar
    python bench/loss_speed.py --step tf_efficientnet_lite0,resnet50
    python bench/loss_speed.py --out bench/results/cpu.json

Every implementation's values and gradient are compared with the float64 definition first; one that disagrees is
reported as refused and gets no time. Implementations take turns on the same inputs; times are medians with their 20th
and 80th percentiles, and minima.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import implementations
import instructions
import machine
import memory
import step
import store
import sweeps
import tables
import torch
from harness import Limits, measure_case
from implementations import Case
from masks import MASKS
from rich.console import Console

MEMORY = ("l1", "authors", "eager", "doubling", "cpp")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="loss_speed.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(implementations.IMPLEMENTATIONS)
    parser.add_argument("--device", choices=("all", "cpu", "cuda"), default="all", help="where; all: whatever is there")
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer cases, short rounds")
    parser.add_argument("--only", type=_names, default=(), metavar="A,B", help=f"implementations, of {names}")
    parser.add_argument("--skip", type=_names, default=(), metavar="A,B", help="implementations to leave out")
    parser.add_argument(
        "--sweep", type=_names, default=None, metavar="A,B", help=f"of {', '.join(sweeps.SWEEPS)}, or none; default all"
    )
    parser.add_argument("--batch", type=int, default=8, help="images of the main case (8)")
    parser.add_argument("--size", type=_size, default=(288, 384), metavar="HxW", help="of the main case (288x384)")
    parser.add_argument("--losses", default="all", help="of the main case, as in mlr.LossSpace (all)")
    parser.add_argument("--mask", choices=tuple(MASKS), default="none", help="of the main case; lidar means area too")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (all cores)")
    parser.add_argument("--seconds", type=float, default=None, help="a main case (8; quick 2); sweeps take a third")
    parser.add_argument("--cap", type=float, default=None, help="seconds of one implementation in a case (8; quick 2)")
    parser.add_argument("--compile-timeout", type=float, default=900.0, help="seconds a compilation may take (900)")
    parser.add_argument("--step", type=_names, default=(), metavar="A,B", help="backbones to take training steps of")
    parser.add_argument("--step-batch", type=int, default=None, help="images of a training step (as --batch)")
    parser.add_argument("--step-rounds", type=int, default=4, help="training steps with each loss (4)")
    parser.add_argument("--step-seconds", type=float, default=120.0, help="no round of steps starts after this (120)")
    parser.add_argument("--decoder-channels", type=int, default=1024, help="of the network in --step (1024)")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, help="peak memory (not if quick)")
    parser.add_argument("--compile", action="store_true", help="torch.compile takes part: minutes of compilation")
    parser.add_argument("--instructions", action="store_true", help="count the C++ engine's by callgrind: two minutes")
    parser.add_argument("--targets", action="store_true", help="only the project's own targets, and their table")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the results; replaced if it is there")
    args = parser.parse_args(argv)
    try:
        implementations.select(args.only, args.skip)
        sweeps.devices(args.device)
        args.count = len(Case(losses=args.losses).terms)
    except ValueError as error:
        parser.error(str(error))
    if unknown := [name for name in args.sweep or () if name not in (*sweeps.SWEEPS, "none")]:
        parser.error(f"unknown sweep {', '.join(unknown)}; there are {', '.join(sweeps.SWEEPS)}, or none")
    if args.step_batch is None:
        args.step_batch = args.batch
    if min(args.batch, *args.size, args.threads, args.step_batch, args.step_rounds) < 1:
        parser.error("--batch, --size, --threads, --step-batch and --step-rounds must be at least 1")
    if min(x for x in (args.seconds, args.cap, args.compile_timeout, args.step_seconds, 1) if x is not None) <= 0:
        parser.error("--seconds, --cap, --compile-timeout and --step-seconds must be positive")
    if args.out and not args.out.parent.is_dir():
        parser.error(f"--out {args.out}: there is no folder {args.out.parent}")
    if args.out and args.out.is_dir():
        parser.error(f"--out {args.out} is a folder; give a file in it")
    try:
        step.check(args.step)
    except ValueError as error:
        parser.error(str(error))
    return args


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a size is HEIGHTxWIDTH such as 288x384, got {text!r}") from None


def plan(args: argparse.Namespace, device: str) -> list[Case]:
    """Cases to measure on a device."""
    threads = args.threads if device == "cpu" else 1
    base = Case(
        batch=args.batch, height=args.size[0], width=args.size[1], losses=args.losses, threads=threads, device=device,
        mask=args.mask, downsample="area" if args.mask == "lidar" else "bicubic",
    )  # fmt: skip
    cases = sweeps.main_cases(base)
    if args.targets:
        chosen: Sequence[str] = ("threads", "losses", "mask")
    elif args.sweep is not None:
        chosen = args.sweep
    else:
        chosen = ("losses", "size", "threads", "mask") if args.quick else tuple(sweeps.SWEEPS)
    for name in chosen:
        cases += sweeps.sweep_cases(name, base, args.quick)
    if device == "cuda":
        from cuda_clock import cold_sets

        cases = [replace(case, sets=cold_sets(case)) for case in cases]
    return cases


def measure(args: argparse.Namespace, device: str, path: Path | None, console: Console) -> dict[str, Any]:
    """All results of a device, JSON-ready; written after every case, so that a run that is cut off is not lost."""
    start = time.perf_counter()
    torch.set_num_threads(args.threads)
    skip = args.skip if args.compile or args.only else (*args.skip, "compile")
    skip = (*skip, "reference") if args.quick and not args.only else skip
    chosen = implementations.select(args.only, skip)
    seconds = args.seconds or (2.0 if args.quick else 8.0)
    cap = args.cap or (2.0 if args.quick else 8.0)
    main = Limits(seconds, cap, args.compile_timeout)
    short = Limits(seconds / 3, cap / 3, args.compile_timeout)
    data: dict[str, Any] = {"schema": store.SCHEMA, "meta": machine.metadata(device)}
    data["meta"]["command"] = " ".join(["bench/loss_speed.py", *args.argv])
    data["copy_gbs"] = float(f"{machine.copy_bandwidth(device):.4g}")
    data["implementations"] = {c.name: c.about for c in chosen}
    data |= {"cases": [], "memory": [], "instructions": {}, "steps": []}

    def save() -> None:
        data["meta"]["minutes"] = round((time.perf_counter() - start) / 60, 1)
        if path:
            store.write(path, data)

    console.print(_heading(data["meta"], data["copy_gbs"]))
    for implementation in chosen:
        console.print(f"  {implementation.name:<12} {implementation.about}", highlight=False)
    if device == "cpu" and (load := data["meta"]["load_at_start"] or 0) > 0.5:
        console.print(
            f"[yellow]the machine is busy (load {load} on {data['meta']['cores']} cores): times will be noisy[/]"
        )
    with console.status("") as status:
        for case in plan(args, device):
            selected = [c for c in chosen if sweeps.takes_part(c, case)]
            limits = main if case.sweep == "main" else short
            data["cases"].append(measure_case(case, selected, limits, status.update))
            save()
            console.print(tables.case_table(data["cases"][-1], data["copy_gbs"]).rich())
        data["memory"] = _memory(args, device, skip, status.update)
        data["instructions"] = _instructions(args, device, status.update)
        save()
        for backbone in args.step:
            case = plan(args, device)[0]
            case = replace(case, batch=args.step_batch, sets=1)
            row = step.measure(
                backbone, case, args.step_rounds, args.step_seconds, args.decoder_channels, status.update
            )
            data["steps"].append(row)
            save()
            console.print(tables.step_table(row).rich())
    for table in tables.summaries(data, targets=args.targets):
        console.print(table.rich())
    for result in tables.pick(data, "main"):
        console.print(tables.conclusion(result))
    if "reason" in data["instructions"]:
        console.print(f"instructions are not counted: {data['instructions']['reason']}")
    save()
    return data


def _heading(meta: dict[str, Any], copy: float) -> str:
    chip = meta.get("gpu") or f"{meta['cpu']}, {meta['threads']} of {meta['cores']} cores"
    return f"[bold]{chip}[/], torch {meta['torch']}, commit {meta['commit']}; memory copies at {copy:.0f} GB/s"


def _memory(args: argparse.Namespace, device: str, skip: Sequence[str], progress: Any) -> list[dict[str, Any]]:
    """Peak memory by process; a GPU's cases carry it already."""
    wanted = args.memory if args.memory is not None else args.targets or not args.quick
    rows = []
    for name in MEMORY if wanted and device == "cpu" else ():
        if name in skip or (args.only and name not in args.only):
            continue
        progress(f"peak memory of {name}")
        case = Case(batch=args.batch, height=args.size[0], width=args.size[1], losses=args.losses, threads=args.threads)
        rows.append(memory.peak_memory(name, case))
        if name == "cpp":
            rows.append(memory.peak_memory(name, replace(case, mask="kinect")))
    return rows


def _instructions(args: argparse.Namespace, device: str, progress: Any) -> dict[str, Any]:
    if not args.instructions or device != "cpu":
        return {}
    progress("counting instructions with callgrind (about two minutes)")
    return instructions.count()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the results; 1 where one of the backends was refused."""
    args = arguments(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    console, refused = Console(), False
    if not console.is_terminal:
        console = Console(width=160)  # a log file has no edge
    devices = sweeps.devices(args.device)
    if args.compile or "compile" in args.only:
        # in an empty cache: what an earlier run has compiled would make this one look fast
        cache = tempfile.TemporaryDirectory(prefix="mlr-compiled-")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name
    for device in devices:
        path = args.out
        if path and len(devices) > 1 and device != "cpu":
            path = path.with_name(f"{path.stem}-{device}.json")  # one file a device
        refused |= tables.refused(measure(args, device, path, console))
        if path:
            console.print(f"results: {path}")
    if not args.out:
        console.print("add --out FILE.json to keep these results")
    if refused:
        console.print("[bold red]a backend of ours was refused: its times are not shown[/]")
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
