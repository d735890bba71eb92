# SPDX-License-Identifier: Apache-2.0
"""Results as tables: what is derived from measured times (ratios, GB/s, targets), once for console and pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from implementations import OURS
from rich import box
from rich.table import Table as RichTable

#: What every backend is compared with: the plain loss that people use today.
YARDSTICK = "l1"


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column is a name, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def rich(self) -> RichTable:
        """For the console."""
        table = RichTable(
            title=self.title, title_justify="left", title_style="bold", header_style="", box=box.SIMPLE_HEAD,
            caption="\n".join(self.notes) or None, caption_justify="left",
        )  # fmt: skip
        for i, column in enumerate(self.header):
            table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i > 0)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For pages; the title is left to the page."""
        lines = ["| " + " | ".join(self.header) + " |", "|---" + "|---:" * (len(self.header) - 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])


def number(x: float | None, digits: int = 3) -> str:
    """A number in a table: some significant digits, never in exponents between 0.001 and a million."""
    if x is None:
        return ""
    if x == 0:
        return "0"
    if 1e-3 <= abs(x) < 1e6:
        text = f"{x:.{digits}g}" if abs(x) < 10**digits else f"{x:.0f}"
        return text if "e" not in text else f"{x:.0f}"
    return f"{x:.0e}"


def time_of(case: dict[str, Any], name: str, key: str = "median_ms") -> float | None:
    """Milliseconds of a implementation in a case, or None where it has none."""
    return case["results"].get(name, {}).get(key)


def ratio(case: dict[str, Any], over: str, under: str, key: str = "median_ms") -> float | None:
    """Time of one implementation over that of another in the same case."""
    a, b = time_of(case, over, key), time_of(case, under, key)
    return None if a is None or b is None else a / b


def backend_of(case: dict[str, Any]) -> str:
    """The backend of the case's device."""
    return "cpp" if case["device"] == "cpu" else "triton"


def describe(case: dict[str, Any]) -> str:
    """A case in words."""
    mode = "terms + gradient" if case["gradient"] else "terms only"
    threads = f", {case['threads']} thread{'s' * (case['threads'] > 1)}" if case["device"] == "cpu" else ""
    cold = ", inputs out of the cache" if case["sets"] > 1 else ""
    losses = f"{case['count']} loss{'es' * (case['count'] > 1)}"
    extras = "" if case["mask"] == "none" else f", mask {case['mask']}"
    extras += "" if case["downsample"] == "bicubic" else f", {case['downsample']}"
    size = f"{case['batch']} x {case['height']} x {case['width']}"
    return f"{size}, {losses}, {case['dtype']}, {mode}{threads}{cold}{extras}"


def pick(data: dict[str, Any], sweep: str, **fields: Any) -> list[dict[str, Any]]:
    """Cases of a sweep whose fields have certain values."""
    return [c for c in data["cases"] if c["sweep"] == sweep and all(c[k] == v for k, v in fields.items())]


def refused(data: dict[str, Any]) -> bool:
    """Whether one of our backends failed a parity check."""
    return any(case["results"].get(name, {}).get("status") == "refused" for case in data["cases"] for name in OURS)


# --- one case ---------------------------------------------------------------------------------------------------------


def case_table(case: dict[str, Any], copy_gbs: float) -> Table:
    """Every implementation in one case: times, ratio to the plain loss, traffic, errors."""
    gpu = case["device"] == "cuda"
    header = [
        "",
        "median ms",
        "p20 - p80",
        "min ms",
        f"x {YARDSTICK}",
        "GB/s",
        "% of copy",
        "error terms",
        "error grad",
    ]
    header += ["graph ms", "kernels", "MB"] if gpu else []
    rows, notes, absent = [], [], []
    for name, r in case["results"].items():
        if r["status"] == "refused":
            notes.append(f"{name} is REFUSED: {r['reason']}")
            continue
        if r["status"] == "unavailable":
            absent.append(f"{name} ({r['reason']})")
            continue
        # a GPU's traffic is judged by its own time, not by that of the launches
        gbs = case["bytes"] / (r.get("graph_ms") or r["median_ms"]) / 1e6
        row = [
            name, number(r["median_ms"]), f"{number(r['p20_ms'])} - {number(r['p80_ms'])}", number(r["min_ms"]),
            number(ratio(case, name, YARDSTICK)), number(gbs), number(100 * gbs / copy_gbs),
            number(r["error_terms"], 2), number(r["error_gradient"], 2) if case["gradient"] else "",
        ]  # fmt: skip
        row += [number(r.get("graph_ms")), number(r.get("kernels")), number(r.get("memory_mb"))] if gpu else []
        rows.append(tuple(row))
    if absent:
        notes.append(f"Not here: {'; '.join(absent)}")
    title = describe(case) if case["sweep"] == "main" else f"{describe(case)} (sweep over {case['sweep']})"
    return Table(title, tuple(header), tuple(rows), tuple(notes))


def conclusion(case: dict[str, Any]) -> str:
    """A case in one sentence: our time, and the times of the plain loss and of the best plain PyTorch beside it."""
    key = "graph_ms" if case["device"] == "cuda" else "median_ms"
    ours = next((name for name in ("module", backend_of(case)) if time_of(case, name, key)), None)
    if ours is None:
        return f"{describe(case)}: no backend of mlr was timed."
    text = f"{describe(case)}: mlr takes {number(time_of(case, ours, key))} ms ({ours})"
    if over := ratio(case, ours, YARDSTICK, key):
        text += f", {number(over)} x one plain L1"
    plain = [name for name in ("eager", "doubling", "compile") if time_of(case, name, key)]
    if plain:
        best = min(plain, key=lambda name: time_of(case, name, key) or 0)
        text += f"; the best plain PyTorch ({best}) takes {number(ratio(case, best, ours, key))} x as long"
    return text + "."


# --- a sweep ----------------------------------------------------------------------------------------------------------

_LABELS = {
    "losses": "losses",
    "size": "maps",
    "threads": "batch, threads",
    "dtype": "type",
    "batch": "batch",
    "mask": "mask",
}


def _label(case: dict[str, Any], sweep: str) -> str:
    return {
        "losses": f"{case['count']} ({case['losses']})",
        "size": f"{case['batch']} x {case['height']} x {case['width']}",
        "threads": f"{case['batch']}, {case['threads']}",
        "dtype": case["dtype"],
        "batch": str(case["batch"]),
        "mask": ("no mask" if case["mask"] == "none" else case["mask"]) + f", {case['downsample']}",
    }.get(sweep, describe(case))


def sweep_table(data: dict[str, Any], sweep: str, title: str) -> Table | None:
    """Median milliseconds along a sweep, with the backend's ratio to the plain loss; None if it was not run."""
    cases = pick(data, sweep)
    if cases and sweep == "batch":  # the main cases are points of this line too
        cases = sorted(cases + pick(data, "main"), key=lambda c: c["batch"])
    if not cases:
        return None
    names = [n for n in cases[0]["results"] if any(time_of(c, n) is not None for c in cases)]
    if sweep == "batch":
        names = [n for n in names if all(n in c["results"] for c in cases)]
    ours = backend_of(cases[0])
    key = "graph_ms" if cases[0]["device"] == "cuda" else "median_ms"
    rows = []
    for case in cases:
        times = [_time_or_reason(case, n, key) for n in names]
        rows.append((_label(case, sweep), *times, number(ratio(case, ours, YARDSTICK, key))))
    return Table(title, (_LABELS.get(sweep, "case"), *(f"{n} ms" for n in names), f"{ours} / {YARDSTICK}"), tuple(rows))


def _time_or_reason(case: dict[str, Any], name: str, key: str) -> str:
    result = case["results"].get(name, {})
    return "refused" if result.get("status") == "refused" else number(result.get(key))


# --- training steps, memory, instructions -----------------------------------------------------------------------------


def step_table(row: dict[str, Any]) -> Table:
    """Table 7 of the paper for one network."""
    chip = "GPU" if row["device"] == "cuda" else f"{row['threads']} CPU threads"
    title = f"{row['backbone']}, {row['batch']} x {row['height']} x {row['width']}, {chip}"
    header = ("losses in the step", "step ms", "p20 - p80", "loss ms", "loss adds to the step")
    if "reason" in row:
        return Table(title, header, ((row["reason"], "", "", "", ""),))
    rows = []
    for name, v in row["variants"].items():
        if "reason" in v:
            rows.append((name, f"refused: {v['reason']}", "", "", ""))
            continue
        spread = f"{number(v['step']['p20_ms'], 4)} - {number(v['step']['p80_ms'], 4)}"
        added = f"{v['added_percent']:+.2f} %" if name != "D/0" and "added_percent" in v else ""
        rows.append(
            (f"{name} ({v['runs']})", number(v["step"]["median_ms"], 4), spread, number(v["loss"]["median_ms"]), added)
        )
    return Table(title, header, tuple(rows))


def memory_table(data: dict[str, Any]) -> Table | None:
    """Peak memory beyond prediction, target and gradient."""
    if not data.get("memory"):
        return None
    first = data["memory"][0]
    title = f"Peak memory beyond inputs and gradient, {first['batch']} x {first['height']} x {first['width']}"
    rows = tuple(
        (
            r["implementation"] + (f", mask {r['mask']}" if r["mask"] != "none" else ""),
            number(r.get("memory_mb")) or r["reason"],
            str(r["threads"]),
        )
        for r in data["memory"]
    )
    return Table(title, ("", "MB", "threads"), rows)


def instruction_table(data: dict[str, Any]) -> Table | None:
    """Instructions a call of the C++ engine."""
    counts = data.get("instructions") or {}
    if "rows" not in counts:
        return None
    rows = tuple(
        (
            f"{r['batch']} x {r['height']} x {r['width']}, {r['count']} ({r['losses']})"
            + ("" if r["gradient"] else ", terms only"),
            f"{r['instructions']:,}",
            number(r["per_pixel"]),
        )
        for r in counts["rows"]
    )
    return Table(
        f"Instructions a call ({counts['instruction_set']}, one thread)", ("", "instructions", "a pixel"), rows
    )


# --- targets ----------------------------------------------------------------------------------------------------------


def target_table(data: dict[str, Any]) -> Table | None:
    """What the C++ engine set out to reach, for 8 and 1 maps of 288 x 384 with all losses and their gradient, and what
    it reaches here."""
    whole = [c for c in pick(data, "main") if (c["count"], c["height"], c["width"]) == (78, 288, 384)]
    batches = [c for c in whole if c["results"].get("cpp", {}).get("status") == "ok"]
    if not batches:
        return None
    eight = batches[0]
    instruction_set = data["meta"]["cpp"]
    rows: list[tuple[str, ...]] = []

    def row(what: str, goal: str, median: float | None, best: float | None = None) -> None:
        if median is None:
            rows.append((what, goal, "not measured", "", ""))
            return
        bound, values = float(goal.split()[1]), [x for x in (median, best) if x is not None]
        met = max(values) <= bound if goal.startswith("<=") else min(values) >= bound
        rows.append((what, goal, number(median), number(best), "yes" if met else "no"))

    def compare(what: str, goal: str, case: dict[str, Any] | None, over: str, under: str) -> None:
        both = [None, None] if case is None else [ratio(case, over, under, key) for key in ("median_ms", "min_ms")]
        row(what, goal, *both)

    for name, goal in (("avx512", "<= 3.0"), ("avx2", "<= 6.0")):
        ours = "cpp" if name == instruction_set else f"cpp-{name}"
        for at in batches:
            compare(f"78 losses / plain L1, {name}, B = {at['batch']}", goal, at, ours, YARDSTICK)
    compare("torch.compile of eager / ours", ">= 120", eight, "compile", "cpp")
    compare("the authors' formulation / ours", ">= 1500", eight, "authors", "cpp")
    scaling = {c["threads"]: c for c in pick(data, "threads", batch=eight["batch"])}
    if 1 in scaling and 2 in scaling:
        both = []
        for key in ("median_ms", "min_ms"):
            a, b = time_of(scaling[1], "cpp", key), time_of(scaling[2], "cpp", key)
            both.append(None if a is None or b is None else a / b)
        row(f"2 threads against 1, B = {eight['batch']}", ">= 1.85", *both)
    else:
        row("2 threads against 1", ">= 1.85", None)
    alone = pick(data, "losses", losses="baseline")
    compare("D/0 alone / plain L1", "<= 0.4", alone[0] if alone else None, "cpp", YARDSTICK)
    masked = {(c["mask"], c["downsample"]): c for c in pick(data, "mask")}
    for mask, downsample, goal in (
        ("ones", "bicubic", "<= 1.25"), ("kinect", "bicubic", "<= 1.8"), ("lidar", "area", "<= 2.0"),
    ):  # fmt: skip
        with_mask, without = masked.get((mask, downsample)), masked.get(("none", downsample))
        times = [
            None if with_mask is None or without is None else _over(with_mask, without, key)
            for key in ("median_ms", "min_ms")
        ]
        row(f"mask {mask} / no mask, {downsample}", goal, *times)
    compare("eager / ours, mask kinect", ">= 60", masked.get(("kinect", "bicubic")), "eager", "cpp")
    for mask, goal in (("none", "<= 4"), ("kinect", "<= 5")):
        memory = [
            r for r in data.get("memory", [])
            if r["implementation"] == "cpp" and r["mask"] == mask and "memory_mb" in r
        ]  # fmt: skip
        what = "peak memory, MB a thread" + (f", mask {mask}" if mask != "none" else "")
        row(what, goal, memory[0]["memory_mb"] / memory[0]["threads"] if memory else None)
    row("largest relative error of a term", "<= 2e-6", eight["results"]["cpp"]["error_terms"])
    for at in batches:
        row(f"relative L2 error of the gradient, B = {at['batch']}", "<= 1e-6", at["results"]["cpp"]["error_gradient"])
    return Table("Targets of the C++ engine", ("", "to reach", "median", "minimum", "met"), tuple(rows))


def _over(case: dict[str, Any], base: dict[str, Any], key: str) -> float | None:
    """Our time in one case over that in another."""
    a, b = time_of(case, "cpp", key), time_of(base, "cpp", key)
    return None if a is None or b is None else a / b


def summaries(data: dict[str, Any], targets: bool) -> Sequence[Table]:
    """Tables that are not about a case: memory, instructions and, if asked for, the project's own targets."""
    found = [memory_table(data), instruction_table(data)]
    if targets and data["meta"]["device"] == "cpu":
        found.append(target_table(data))
    return [table for table in found if table is not None]
