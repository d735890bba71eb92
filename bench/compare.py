# SPDX-License-Identifier: Apache-2.0
"""Is this commit faster or slower than that one? Two builds take turns on the same inputs.

    make bench-compare BASE=<commit>                      the working tree against a commit
    python bench/compare.py --base v0.1 --head main       two commits
    python bench/compare.py --base HEAD --instructions    counts instructions too, which no noise touches

Every commit is checked out into a git worktree under build/compare and its C++ engine is built there, once. A process
for each holds its own mlr; both are asked in turn for short visits on every case. Parity comes first: a side that
disagrees with the float64 definition gets no time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import machine
import sweeps
from cuda_clock import CudaClock
from harness import CpuClock, parity, summary
from implementations import IMPLEMENTATIONS, Case, depth_maps, threads
from rich.console import Console
from tables import Table, number

import mlr

TREES = machine.ROOT / "build" / "compare"


# --- one side: a process with its own mlr -----------------------------------------------------------------------------


def serve() -> None:
    """Answer the parent's requests: a case to prepare, then visits to it. One JSON line each way."""
    print(json.dumps({"mlr": mlr.__file__}), flush=True)
    call = sets = None
    calls = 0
    clock: CpuClock | CudaClock = CpuClock()
    for line in sys.stdin:
        request = json.loads(line)
        if "case" in request:
            case = Case(**request["case"])
            implementation = IMPLEMENTATIONS[request["implementation"]]
            clock = CudaClock() if case.device == "cuda" else CpuClock()
            with threads(case.threads):
                sets, call = [depth_maps(case, seed) for seed in range(case.sets)], implementation.build(case)
                got, exact = call(sets[0]), implementation.truth(case, sets[0])
                _, _, refusal = parity(implementation, case, got, exact)
                answer: dict[str, Any] = {"refusal": refusal, "estimate": min(clock.time_calls(call, sets, 3))}
        else:
            assert call is not None
            assert sets is not None
            with threads(case.threads):
                answer = {"samples": clock.time_calls(call, sets, request["count"] + 1, calls)[1:]}
            calls += request["count"] + 1
        print(json.dumps(answer), flush=True)


class Side:
    """The parent's end of a process that runs one commit's mlr."""

    def __init__(self, name: str, tree: Path) -> None:
        self.name, self.tree = name, tree
        command = [sys.executable, "-W", "ignore", __file__, "--serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(tree)
        )
        loaded = Path(self._answer()["mlr"])
        if not loaded.is_relative_to(tree):
            raise RuntimeError(f"{name}: mlr came from {loaded}, expected {tree}")

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the process ended; its message is above")
        return json.loads(line)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def environment(tree: Path) -> dict[str, str]:
    """Environment in which ``import mlr`` takes the tree's."""
    return {**os.environ, "PYTHONPATH": str(tree)}


# --- builds -----------------------------------------------------------------------------------------------------------


def checkout(commit: str, console: Console) -> tuple[str, Path]:
    """A worktree of a commit with its C++ engine built: the commit's short hash and the folder."""
    sha = machine.git("rev-parse", "--verify", "--short=12", f"{commit}^{{commit}}")
    if sha is None:
        raise ValueError(f"{commit!r} is no commit of this repository; try `git log --oneline`")
    tree = TREES / sha
    if not tree.exists():
        TREES.mkdir(parents=True, exist_ok=True)
        if machine.git("worktree", "add", "--force", "--detach", str(tree), sha) is None:
            raise ValueError(f"git could not check out {sha} into {tree}; `git worktree prune` clears old entries")
    build(tree, console)
    return sha, tree


def build(tree: Path, console: Console) -> None:
    """Build a tree's C++ engine in place, and make kernels/ its package mlr.kernels as an installation does."""
    link = tree / "mlr" / "kernels"
    if tree != machine.ROOT and not link.exists():
        link.symlink_to(tree / "kernels", target_is_directory=True)
    if not list((tree / "csrc").glob("*.cpp")):
        return
    console.print(f"building {tree}")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    result = subprocess.run(command, cwd=tree, env={**os.environ, "MLR_BUILD_CPP": "1"}, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"the C++ engine of {tree} does not build:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")


# --- the comparison ---------------------------------------------------------------------------------------------------


def cases(device: str, count: int) -> list[Case]:
    """What is compared: all losses on 8 maps and on one, few losses, values only, large maps, one thread."""
    base = Case(threads=count if device == "cpu" else 1, device=device)
    found = [
        base, replace(base, batch=1), replace(base, losses="baseline"), replace(base, losses="coarse"),
        replace(base, gradient=False), replace(base, batch=1, height=1080, width=1920),
    ]  # fmt: skip
    if device == "cpu" and count > 1:
        found.append(replace(base, threads=1))
    if device == "cuda":
        from cuda_clock import cold_sets

        found = [replace(case, sets=cold_sets(case)) for case in found]
    return found


def alternate(sides: Sequence[Side], case: Case, implementation: str, seconds: float) -> list[dict[str, Any]]:
    """Timings of both sides on a case, or why one is refused."""
    ready = [side.ask(case=asdict(case), implementation=implementation) for side in sides]
    if any(answer["refusal"] for answer in ready):
        return [{"refused": answer["refusal"]} for answer in ready]
    samples: list[list[float]] = [[] for _ in sides]
    deadline, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < deadline or len(samples[0]) < 5:
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        for i in order:
            count = max(1, min(100, round(0.05 / ready[i]["estimate"])))
            samples[i] += sides[i].ask(count=count)["samples"]
        turn += 1
    return [summary(values) for values in samples]


def compare(
    sides: Sequence[Side], args: argparse.Namespace, progress: Callable[[str], None]
) -> tuple[list[tuple[str, ...]], bool]:
    """A row of the table for every case, and whether a side was refused in one.

    Raises:
        RuntimeError: a side's process ended.
    """
    rows: list[tuple[str, ...]] = []
    implementation, refused = ("cpp" if args.device == "cpu" else "triton"), False
    for case in cases(args.device, args.threads):
        progress(str(case))
        base, head = alternate(sides, case, implementation, args.seconds)
        if "refused" in base:
            refused = True
            rows.append((str(case), base["refused"] or "right", head["refused"] or "right", "", "", "refused"))
            continue
        medians, minima = (head[key] / base[key] for key in ("median_ms", "min_ms"))
        cells = [f"{number(s['median_ms'])} ({number(s['min_ms'])})" for s in (base, head)]
        rows.append((str(case), *cells, f"{medians:.3f}", f"{minima:.3f}", verdict(base, head)))
    return rows, refused


def verdict(base: dict[str, Any], head: dict[str, Any]) -> str:
    """Faster or slower, where medians and minima say the same and the spreads do not meet."""
    if head["p80_ms"] < base["p20_ms"] and head["min_ms"] < base["min_ms"]:
        return "faster"
    if head["p20_ms"] > base["p80_ms"] and head["min_ms"] > base["min_ms"]:
        return "slower"
    return "same within noise"


def counts(tree: Path) -> dict[str, Any]:
    """Instructions a call of a tree's backend."""
    command = [sys.executable, "-W", "ignore", str(machine.ROOT / "bench" / "instructions.py")]
    result = subprocess.run(command, env=environment(tree), capture_output=True, text=True)
    return json.loads(result.stdout) if result.returncode == 0 else {"reason": result.stderr[-500:]}


def instruction_table(names: Sequence[str], found: Sequence[dict[str, Any]]) -> Table | str:
    """Counts side by side, or why there are none."""
    for side in found:
        if "reason" in side:
            return f"instructions are not counted: {side['reason']}"
    rows = [
        (
            f"{a['batch']} x {a['height']} x {a['width']}, {a['count']} ({a['losses']})"
            + ("" if a["gradient"] else ", terms only"),
            f"{a['instructions']:,}",
            f"{b['instructions']:,}",
            f"{b['instructions'] / a['instructions']:.4f}",
        )
        for a, b in zip(found[0]["rows"], found[1]["rows"], strict=True)
    ]
    return Table("Instructions a call", ("", *names, "ratio"), tuple(rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; 1 where a side is refused."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="commit to compare with")
    parser.add_argument("--head", default=None, help="commit to judge (the working tree)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (all cores)")
    parser.add_argument("--seconds", type=float, default=6.0, help="a case (6)")
    parser.add_argument("--instructions", action="store_true", help="count instructions with callgrind too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        serve()
        return 0
    if not args.base:
        parser.error("--base says which commit to compare with, e.g. --base HEAD~1 (make bench-compare BASE=HEAD~1)")
    if args.threads < 1 or args.seconds <= 0:
        parser.error("--threads must be at least 1 and --seconds positive")
    console = Console() if sys.stdout.isatty() else Console(width=140)
    try:
        sweeps.devices(args.device)
        base_name, base_tree = checkout(args.base, console)
        head_name, head_tree = checkout(args.head, console) if args.head else ("working tree", machine.ROOT)
        if not args.head:
            build(head_tree, console)
        names, trees = (f"base {base_name}", f"head {head_name}"), (base_tree, head_tree)
        sides = [Side(name, tree) for name, tree in zip(names, trees, strict=True)]
        with console.status("") as status:
            rows, refused = compare(sides, args, status.update)
    except (ValueError, RuntimeError) as error:
        parser.exit(2, f"error: {error}\n")
    for side in sides:
        side.close()
    header = ("", *names, "ratio of medians", "of minima", "head is")
    console.print(Table("median (minimum) milliseconds", header, tuple(rows)).rich())
    ratios = [float(row[4]) for row in rows if row[4]]
    if ratios:
        console.print(f"geometric mean of the ratios of minima: {statistics.geometric_mean(ratios):.3f}")
    if args.instructions:
        table = instruction_table(names, [counts(tree) for tree in trees])
        console.print(table.rich() if isinstance(table, Table) else table)
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
