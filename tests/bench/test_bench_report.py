# SPDX-License-Identifier: Apache-2.0
"""The pages of the benchmark say only what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report
import store
import tables
from benchmarking import ROOT


def test_readme_and_page_agree_with_the_committed_results(capsys: Any) -> None:
    assert report.main(["--check"]) == 0, capsys.readouterr().out


def test_every_figure_of_the_committed_results_is_there() -> None:
    for path in report.figure_paths(store.read_all()):
        assert (ROOT / report.FIGURES / path).is_file(), "run `make bench-report` and commit the figures"


def test_another_number_makes_another_page(measured: Path) -> None:
    data = store.read(measured)
    before = report.page({"tiny": data}), report.readme_block({"tiny": data})
    data["cases"][0]["results"]["l1"]["median_ms"] = 1234.0
    after = report.page({"tiny": data}), report.readme_block({"tiny": data})
    assert all(a != b and "1234" in b for a, b in zip(before, after, strict=True))


def test_the_page_shows_a_refused_implementation_without_a_time(measured: Path) -> None:
    data = store.read(measured)
    data["cases"][0]["results"]["doubling"] = {"status": "refused", "reason": "a loss is off"}
    assert "doubling is REFUSED: a loss is off" in report.page({"tiny": data})


def test_a_readme_without_its_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="bench:start"):
        report.with_block("# mlr\n", "new")
    assert report.with_block(f"a\n{report.START}\nold\n{report.END}\nb", "new") == "a\nnew\nb"


def test_figures_are_drawn_and_repeat_byte_for_byte(measured: Path, tmp_path: Path) -> None:
    results = {"tiny": store.read(measured)}
    first, second = report.draw(results, tmp_path / "a"), report.draw(results, tmp_path / "b")
    assert [p.name for p in first] == list(report.figure_paths(results)) == ["speed-tiny-losses.svg"]
    assert first[0].read_bytes() == second[0].read_bytes()


def test_steps_and_sweeps_are_merged_from_the_same_machine_only(measured: Path, tmp_path: Path) -> None:
    other, steps = store.read(measured), [{"backbone": "resnet50", "variants": {}}]
    unknown = {"backbone": "vgg16", "reason": "the network needs timm, which is not installed"}
    again = [case | {"bytes": 99} for case in other["cases"] if case["sweep"] in ("main", "losses")]
    assert {case["sweep"] for case in again} == {"main", "losses"}
    again.pop()  # what was not measured again stays
    meta = other["meta"] | {"commit": "feedbeef"}
    store.write(tmp_path / "steps.json", other | {"steps": [*steps, unknown], "cases": again, "meta": meta})
    report.merge(measured, tmp_path / "steps.json")
    merged = store.read(measured)
    assert merged["steps"] == steps
    fresh = [case for case in merged["cases"] if case["bytes"] == 99]
    assert {case["sweep"] for case in fresh} == {"losses"}
    assert len(fresh) == len([case for case in again if case["sweep"] == "losses"])
    assert len(merged["cases"]) == len(other["cases"])
    assert merged["meta"]["merged"][0]["sweeps"] == ["losses"]
    assert "apart at commit feedbeef" in report.page({"cpu": merged | {"steps": []}})
    for key in ("cpu", "torch"):
        store.write(tmp_path / "other.json", other | {"meta": other["meta"] | {key: "another"}})
        with pytest.raises(ValueError, match="another"):
            report.merge(measured, tmp_path / "other.json")


def test_another_number_of_losses_is_not_called_all_of_them(measured: Path) -> None:
    data = store.read(measured)
    for case in data["cases"]:
        case["count"] = 1
    assert tables.target_table(data) is None
    assert "MultiLoss" not in report.readme_block({"cpu": data}).split("one plain L1")[1]


def test_targets_are_judged_by_their_bounds() -> None:
    def ok(ms: float) -> dict[str, Any]:
        return {
            "status": "ok",
            "median_ms": ms,
            "min_ms": ms * (1 + 3 * (ms == 0.3)),
            "error_terms": 1e-6,
            "error_gradient": 2e-6,
        }

    def case(sweep: str, times: dict[str, float], **fields: Any) -> dict[str, Any]:
        base = {"sweep": sweep, "batch": 8, "threads": 2, "losses": "all", "device": "cpu"}
        base |= {"count": 78, "height": 288, "width": 384, "mask": "none", "downsample": "bicubic"}
        return base | fields | {"results": {name: ok(ms) for name, ms in times.items()}}

    data = {
        "meta": {"cpp": "avx512"},
        "memory": [
            {"implementation": "cpp", "threads": 2, "memory_mb": 5.0, "mask": "none"},
            {"implementation": "cpp", "threads": 2, "memory_mb": 12.0, "mask": "kinect"},
        ],
        "cases": [
            case("main", {"l1": 1, "cpp": 2, "cpp-avx2": 7, "authors": 4000}),
            case("losses", {"l1": 1, "cpp": 0.3}, losses="baseline"),
            case("threads", {"cpp": 3}, threads=1),
            case("threads", {"cpp": 2}, threads=2),
            case("mask", {"cpp": 2, "eager": 130}),
            case("mask", {"cpp": 2.2}, mask="ones"),
            case("mask", {"cpp": 4, "eager": 300}, mask="kinect"),
        ],
    }
    table = tables.target_table(data)
    assert table is not None
    met = {row[0]: (row[2], row[4]) for row in table.rows}
    assert met["78 losses / plain L1, avx512, B = 8"] == ("2", "yes")
    assert met["78 losses / plain L1, avx2, B = 8"] == ("7", "no")
    assert met["torch.compile of eager / ours"] == ("not measured", "")
    assert met["the authors' formulation / ours"] == ("2000", "yes")
    assert met["2 threads against 1, B = 8"] == ("1.5", "no")
    assert met["D/0 alone / plain L1"] == ("0.3", "no")  # by the median; the minima do not agree
    assert met["peak memory, MB a thread"] == ("2.5", "yes")
    assert met["peak memory, MB a thread, mask kinect"] == ("6", "no")
    assert met["mask ones / no mask, bicubic"] == ("1.1", "yes")
    assert met["mask kinect / no mask, bicubic"] == ("2", "no")
    assert met["mask lidar / no mask, area"] == ("not measured", "")
    assert met["eager / ours, mask kinect"] == ("75", "yes")
    assert met["relative L2 error of the gradient, B = 8"] == ("2e-06", "no")


@pytest.mark.parametrize(
    ("x", "text"), [(0, "0"), (1.234, "1.23"), (123.4, "123"), (20950, "20950"), (0.0123, "0.0123"), (3e-7, "3e-07")]
)
def test_numbers_have_three_digits(x: float, text: str) -> None:
    assert tables.number(x) == text
