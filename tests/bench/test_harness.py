# SPDX-License-Identifier: Apache-2.0
"""The benchmark times only what is right, and everybody gets the same turns."""

from __future__ import annotations

import itertools
from dataclasses import replace

import first_call
import harness
import implementations
import machine
import pytest
import torch
from benchmarking import BRIEF, BROKEN, TINY, changed
from implementations import IMPLEMENTATIONS, Case, Inputs, Unavailable, Values


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


def test_one_backend_is_not_timed_under_the_name_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLR_BACKEND", "reference")
    monkeypatch.setattr(machine, "cpp_instruction_set", lambda: "avx2")
    with pytest.raises(Unavailable, match="MLR_BACKEND"):
        IMPLEMENTATIONS["cpp"].build(TINY)


def test_the_gain_of_float16_is_in_the_truth_too() -> None:
    inputs = implementations.depth_maps(replace(TINY, dtype="float16"), 0)
    assert inputs.gain == 24 * 32
    torch.testing.assert_close(inputs.weights, inputs.mean_weights * 24 * 32 / 2)


def test_inputs_are_what_the_implementations_expect() -> None:
    inputs = implementations.depth_maps(TINY, 0)
    assert isinstance(inputs, Inputs)
    assert inputs.pred.shape == inputs.target.shape == inputs.grad.shape == (2, 1, 24, 32)
    exact: Values = implementations.truth(TINY, inputs)
    assert exact[0].dtype == torch.float64
    assert exact[1] is not None


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
