# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures only what is right, and its pages say only what was measured."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from depth_maps import depth_pair

import mlr
from mlr.losses import reference

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import compare  # noqa: E402
import first_call  # noqa: E402
import formulations  # noqa: E402
import harness  # noqa: E402
import implementations  # noqa: E402
import instructions  # noqa: E402
import loss_speed  # noqa: E402
import machine  # noqa: E402
import masked_formulation  # noqa: E402
import masks  # noqa: E402
import memory  # noqa: E402
import report  # noqa: E402
import step  # noqa: E402
import store  # noqa: E402
import sweeps  # noqa: E402
import tables  # noqa: E402
from implementations import IMPLEMENTATIONS, Case, Implementation, Inputs, Unavailable, Values  # noqa: E402

TINY = Case(batch=2, height=24, width=32)
BRIEF = harness.Limits(seconds=0.02, implementation_seconds=0.05)


def changed(name: str, change: Any) -> Implementation:
    """A implementation whose results are broken."""
    honest = IMPLEMENTATIONS[name]

    def build(case: Case) -> implementations.Call:
        call = honest.build(case)
        return lambda inputs: change(*call(inputs))

    return replace(honest, name=f"{name}, broken", build=build)


# --- parity before time -----------------------------------------------------------------------------------------------

BROKEN = {
    "gradient 2 % off": lambda values, grad: (values, grad * 1.02),
    "gradient of one image missing": lambda values, grad: (values, torch.cat([grad[:1], 0 * grad[1:]])),
    "one loss off": lambda values, grad: (values * (1 + 1e-3 * torch.eye(2, 78)), grad),
    "no gradient": lambda values, grad: (values, None),
    "gradient of another shape": lambda values, grad: (values, grad[..., :-1]),
    "NaN in the gradient": lambda values, grad: (values, grad.index_fill(-1, torch.tensor([3]), float("nan"))),
    "NaN in a loss": lambda values, grad: (values.index_fill(1, torch.tensor([7]), float("nan")), grad),
    "a loss too few": lambda values, grad: (values[:, 1:], grad),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_wrong_implementation_is_refused_and_gets_no_time(how: str) -> None:
    wrong = changed("reference", BROKEN[how])
    result = harness.measure_case(TINY, [IMPLEMENTATIONS["reference"], wrong], BRIEF)["results"]
    assert result["reference"]["status"] == "ok"
    refused = result["reference, broken"]
    assert refused["status"] == "refused"
    assert refused["reason"]
    assert not any(key.endswith("_ms") for key in refused)


def test_half_precision_gradients_may_be_rounded_but_not_wrong() -> None:
    for dtype in ("float16", "bfloat16"):
        case = replace(TINY, dtype=dtype)
        wrong = changed("reference", lambda values, grad: (values, grad * 1.05))
        result = harness.measure_case(case, [IMPLEMENTATIONS["reference"], wrong], BRIEF)["results"]
        assert [r["status"] for r in result.values()] == ["ok", "refused"]


def test_losses_of_a_map_of_few_pixels_have_no_size_to_be_relative_to() -> None:
    case = Case(batch=1, height=96, width=128)  # scale 4 has 6 x 8 pixels, scale 3 has 12 x 16
    floor = harness.floors(case)
    assert set(floor[: 13 * 4].tolist()) == {1e-30}
    assert set(floor[13 * 4 :].tolist()) == {0.1}
    exact = torch.full((1, 78), 1e-6, dtype=torch.float64)
    assert harness.value_error(exact + 1e-9, exact, floor) == pytest.approx(1e-3)
    assert harness.value_error(exact[:, 52:] + 1e-9, exact[:, 52:], floor[52:]) == pytest.approx(1e-8)


def test_an_implementation_that_cannot_run_says_why() -> None:
    def absent(case: Case) -> implementations.Call:
        raise Unavailable("it is on holiday")

    result = harness.measure_case(TINY, [replace(IMPLEMENTATIONS["l1"], build=absent)], BRIEF)["results"]["l1"]
    assert result == {"status": "unavailable", "reason": "it is on holiday"}


def test_a_compilation_that_takes_too_long_is_given_up() -> None:
    limits = replace(BRIEF, compile_seconds=0.1)
    result = harness.measure_case(TINY, [IMPLEMENTATIONS["compile"]], limits)["results"]["compile"]
    assert result == {"status": "unavailable", "reason": "its compilation was stopped after 0.1 s"}


def test_a_first_call_that_fails_says_why() -> None:
    with pytest.raises(Unavailable, match="float32"):
        first_call.first_call("compile", replace(TINY, dtype="float16"), 600)
    assert first_call.first_call("l1", TINY, 600) > 0


def test_everybody_here_is_right_and_timed() -> None:
    chosen = implementations.select(skip=("compile",))
    for case in (TINY, replace(TINY, gradient=False), replace(TINY, batch=1, height=17, width=31, sets=3)):
        result = harness.measure_case(case, chosen, BRIEF)["results"]
        assert list(result) == [c.name for c in chosen]
        for name, r in result.items():
            assert r["status"] in ("ok", "unavailable"), (name, r)
            if r["status"] == "ok":
                assert 0 < r["min_ms"] <= r["p20_ms"] <= r["median_ms"] <= r["p80_ms"]
                assert r["samples"] >= 1
        assert result["l1"]["status"] == result["eager"]["status"] == result["authors"]["status"] == "ok"


def test_one_engine_is_not_timed_under_the_name_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLR_BACKEND", "reference")
    monkeypatch.setattr(machine, "cpp_instruction_set", lambda: "avx2")
    with pytest.raises(Unavailable, match="MLR_BACKEND"):
        IMPLEMENTATIONS["cpp"].build(TINY)


def test_the_gain_of_float16_is_in_the_truth_too() -> None:
    inputs = implementations.depth_maps(replace(TINY, dtype="float16"), 0)
    assert inputs.gain == 24 * 32
    torch.testing.assert_close(inputs.weights, inputs.mean_weights * 24 * 32 / 2)


# --- the plain formulations are the paper's losses --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["authors", "eager", "doubling"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 1), (17, 31), (33, 47), (70, 90)])
def test_formulations_agree_with_the_definition_in_float64(name: str, size: tuple[int, int]) -> None:
    pred, target = depth_pair(2, *size, dtype=torch.float64)
    terms = mlr.LossSpace("all").indices
    values = getattr(formulations, name)(pred, target, terms)
    expected = reference.multi_loss_terms(pred, target, terms)
    # the authors add 1e-8 to the product of the norms
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=3e-8 if name == "authors" else 1e-12)


@pytest.mark.parametrize("selection", ["D/0", "N/1", "rr/0+cc/2", "mean", "*/3-5"])
def test_formulations_compute_the_losses_that_are_asked_for(selection: str) -> None:
    pred, target = depth_pair(1, 40, 56, dtype=torch.float64)
    terms = mlr.LossSpace(selection).indices
    for formulation in (formulations.authors, formulations.eager, formulations.doubling):
        values = formulation(pred, target, terms)
        torch.testing.assert_close(values, reference.multi_loss_terms(pred, target, terms), rtol=1e-9, atol=3e-8)


@pytest.mark.parametrize("name", ["ones", "kinect", "lidar"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (70, 90)])
@pytest.mark.parametrize("downsample", ["bicubic", "area"])
def test_the_masked_formulation_agrees_with_the_definition_in_float64(
    name: str, size: tuple[int, int], downsample: str
) -> None:
    pred, target = depth_pair(2, *size, dtype=torch.float64)
    mask = masks.make_mask(name, 2, *size, torch.Generator().manual_seed(1))
    assert mask is not None
    terms = mlr.LossSpace("all").indices
    expected = reference.multi_loss_terms(pred, target, terms, downsample, mask)
    for box in (formulations.box_by_pooling, formulations.box_by_doubling):
        values = masked_formulation.masked(pred, target, mask, terms, downsample, box)
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)


def test_masks_have_the_holes_that_they_are_named_for() -> None:
    generator = torch.Generator().manual_seed(0)
    kinect = masks.make_mask("kinect", 4, 288, 384, generator)
    lidar = masks.make_mask("lidar", 4, 288, 384, generator)
    assert kinect is not None
    assert lidar is not None
    assert 0.11 < (~kinect).float().mean() < 0.15
    assert not kinect[..., 0, :].any()
    assert 0.045 < lidar.float().mean() < 0.055
    assert not lidar[..., : int(0.4 * 288), :].any()
    assert masks.make_mask("none", 4, 288, 384, generator) is None
    with pytest.raises(ValueError, match="there are none, ones, kinect, lidar"):
        masks.make_mask("radar", 1, 8, 8, generator)


@pytest.mark.parametrize(("mask", "downsample"), sweeps.MASKED)
def test_masked_cases_are_right_and_timed(mask: str, downsample: str) -> None:
    case = replace(TINY, height=40, width=56, mask=mask, downsample=downsample)
    chosen = implementations.select(only=("l1", "authors", "eager", "doubling", "cpp", "module"))
    result = harness.measure_case(case, chosen, BRIEF)["results"]
    assert all(r["status"] in ("ok", "unavailable") for r in result.values()), result
    assert result["eager"]["status"] == result["doubling"]["status"] == "ok"


# --- the command ------------------------------------------------------------------------------------------------------

ARGUMENTS = [
    "--device", "cpu", "--only", "copy,l1,doubling,cpp,module,triton", "--size", "24x32", "--batch", "2",
    "--threads", "1", "--seconds", "0.03", "--cap", "0.05", "--no-memory",
]  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result file of the command, of maps too small to mean anything."""
    path = tmp_path_factory.mktemp("bench") / "tiny.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "copy_bandwidth", lambda device: 10.0)  # 2 buffers of 256 MB
        assert loss_speed.main([*ARGUMENTS, "--sweep", "losses,threads,terms,dtype,mask", "--out", str(path)]) == 0
    return path


def test_the_command_writes_a_result_file(measured: Path) -> None:
    data = store.read(measured)
    assert {case["sweep"] for case in data["cases"]} == {"main", "losses", "threads", "terms", "dtype", "mask"}
    assert [case["count"] for case in tables.pick(data, "losses")] == [1, 4, 13, 39, 39, 78]
    assert data["meta"]["command"].startswith("bench/loss_speed.py --device cpu")
    assert data["meta"]["torch"] == torch.__version__


def test_sweeps_reach_all_cores_and_maps_that_no_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "last_level_cache", lambda: 64 * 2**20)
    base = Case(threads=6)
    assert [c.threads for c in sweeps.sweep_cases("threads", base, quick=False)][:4] == [1, 2, 4, 6]
    sizes = list(sweeps.sweep_cases("size", base, quick=False))
    assert sizes[-1].bytes >= 128 * 2**20
    assert sizes[-2].bytes < 64 * 2**20
    (cold,) = sweeps.sweep_cases("cold", base, quick=False)
    assert (cold.sets - 1) * cold.bytes >= 128 * 2**20


def test_a_refused_engine_makes_the_command_fail(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(machine, "copy_bandwidth", lambda device: 10.0)
    wrong = replace(changed("reference", BROKEN["gradient 2 % off"]), name="cpp", slow=False)
    monkeypatch.setitem(IMPLEMENTATIONS, "cpp", wrong)
    assert loss_speed.main([*ARGUMENTS, "--only", "l1,cpp", "--sweep", "none"]) == 1
    assert "cpp is REFUSED: the gradient is off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--only", "nobody"], "unknown implementation nobody; there are copy, l1"),
        (["--sweep", "colour"], "unknown sweep colour; there are size"),
        (["--size", "big"], "a size is HEIGHTxWIDTH such as 288x384, got 'big'"),
        (["--losses", "d/0"], "unknown loss 'd/0'"),
        (["--batch", "0"], "must be at least 1"),
        (["--out", "nowhere/x.json"], "there is no folder nowhere"),
        (["--out", "."], "is a folder"),
        (["--step", "resnet5"], "did you mean"),
        (["--step-rounds", "0"], "at least 1"),
        (["--seconds", "-1"], "must be positive"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(wrong: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        loss_speed.arguments(wrong)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_asking_for_a_gpu_that_is_not_there_is_an_error(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        loss_speed.arguments(["--device", "cuda"])
    assert "PyTorch sees no GPU here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.pop("cases"), "'cases' must be there"),
        (lambda d: d["meta"].pop("commit"), "commit missing"),
        (lambda d: d["cases"][0].pop("height"), "case 0: height missing"),
        (lambda d: d["cases"][0]["results"]["l1"].pop("p80_ms"), "l1: p80_ms missing"),
        (lambda d: d["cases"][0]["results"]["l1"].update(status="refused", reason="wrong"), "no time"),
        (lambda d: d.update(schema=99), "layout 99"),
    ],
)
def test_a_damaged_result_file_is_refused(measured: Path, damage: Any, message: str) -> None:
    data = json.loads(measured.read_text())
    damage(data)
    with pytest.raises(ValueError, match=message):
        store.check(data)


# --- the pages --------------------------------------------------------------------------------------------------------


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


def test_every_input_set_gets_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    ticks = itertools.count()
    monkeypatch.setattr(harness.time, "perf_counter", lambda: 1e-3 * next(ticks))  # a slow machine takes no more turns

    def call(inputs: Inputs) -> Values:
        seen.append(id(inputs))
        return IMPLEMENTATIONS["l1"].build(case)(inputs)

    case = Case(batch=1, height=8, width=8, losses="D/0", sets=200)
    harness.measure_case(case, [replace(IMPLEMENTATIONS["l1"], build=lambda _: call)], harness.Limits(seconds=2))
    assert len(set(seen)) == 200


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


# --- training steps, memory, instructions, comparison -----------------------------------------------------------------


def test_training_steps_name_what_each_loss_adds() -> None:
    case = Case(batch=1, height=64, width=64)
    row = step.measure("resnet18", case, rounds=1, decoder_channels=32)
    variants = row["variants"]
    assert {"D/0", "coarse", "all", "all, plain PyTorch"} == set(variants)
    for name in ("D/0", "all, plain PyTorch"):
        assert 0 < variants[name]["loss"]["median_ms"] < variants[name]["step"]["median_ms"]
    assert variants["D/0"]["added_percent"] == 0
    assert "loss adds to the step" in tables.step_table(row).markdown()


def test_a_refused_loss_takes_no_training_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(changed("reference", BROKEN["gradient 2 % off"]), name="module")
    monkeypatch.setitem(IMPLEMENTATIONS, "module", wrong)
    row = step.measure("resnet18", Case(batch=1, height=64, width=64), rounds=1, decoder_channels=32)
    assert set(row["variants"]["all"]) == {"reason"}
    assert "refused" in tables.step_table(row).markdown()


def test_without_valgrind_instructions_are_not_counted_but_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert instructions.count() == {"reason": "valgrind is not installed"}


@pytest.mark.long
@pytest.mark.skipif(bool(instructions.why_not()), reason="needs valgrind and the C++ backend")
def test_instruction_counts_repeat() -> None:
    cases = (Case(batch=1, height=24, width=32, losses="D/0"), Case(batch=1, height=24, width=32))
    first, second = instructions.count(cases), instructions.count(cases)
    for a, b in zip(first["rows"], second["rows"], strict=True):
        assert a["instructions"] == pytest.approx(b["instructions"], rel=0.01)
    assert first["rows"][0]["instructions"] < first["rows"][1]["instructions"]


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="needs Linux's /proc")
def test_peak_memory_counts_the_maps_a_plain_loss_keeps() -> None:
    row = memory.peak_memory("l1", Case(batch=4, height=512, width=512))
    one_map = 4 * 512 * 512 * 4 / 2**20
    assert one_map < row["memory_mb"] < 6 * one_map  # pred - target and its absolute value, at least one at a time


def test_comparison_calls_noise_noise() -> None:
    def side(low: float, middle: float, high: float) -> dict[str, Any]:
        return {"min_ms": low, "p20_ms": low, "median_ms": middle, "p80_ms": high}

    assert compare.verdict(side(10, 11, 12), side(7, 8, 9)) == "faster"
    assert compare.verdict(side(7, 8, 9), side(10, 11, 12)) == "slower"
    assert compare.verdict(side(7, 8, 11), side(7, 9, 12)) == "same within noise"


def test_comparison_with_an_unknown_commit_is_an_error(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        compare.main(["--base", "no-such-commit"])
    assert stop.value.code == 2
    assert "no commit of this repository" in capsys.readouterr().err


@pytest.mark.skipif(machine.cpp_instruction_set() is None, reason="the C++ backend is not built here")
def test_two_sides_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [compare.Side(name, ROOT) for name in ("a", "b")]
    results = compare.alternate(sides, TINY, "cpp", seconds=0.1)
    for side, result in zip(sides, results, strict=True):
        assert result["samples"] >= 5
        assert result["min_ms"] > 0
        side.close()
        assert side.process.returncode == 0


@pytest.mark.gpu
def test_a_gpu_case_has_events_graph_and_kernels() -> None:
    case = Case(batch=2, height=96, width=128, device="cuda", sets=2)
    result = harness.measure_case(case, implementations.select(only=("l1", "triton", "eager")), BRIEF)["results"]
    for r in result.values():
        assert r["status"] == "ok", r
        assert r["kernels"] > 0
        assert r["graph_ms"] > 0
        assert r["wall_ms"] > 0
    assert result["triton"]["kernels"] < result["eager"]["kernels"]


def test_inputs_are_what_the_implementations_expect() -> None:
    inputs = implementations.depth_maps(TINY, 0)
    assert isinstance(inputs, Inputs)
    assert inputs.pred.shape == inputs.target.shape == inputs.grad.shape == (2, 1, 24, 32)
    exact: Values = implementations.truth(TINY, inputs)
    assert exact[0].dtype == torch.float64
    assert exact[1] is not None
