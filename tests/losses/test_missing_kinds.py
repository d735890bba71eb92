# SPDX-License-Identifier: Apache-2.0
"""A kind that is new in the table works on every engine on day one: the reference computes it, the rest runs fused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from depth_maps import depth_pair

from mlr.losses import KINDS, SCALES, reference
from mlr.losses.missing_kinds import missing_kinds, with_all_kinds

ROOT = Path(__file__).parents[2]

# Adds a kind to the table before mlr is imported, a smooth D (Charbonnier), as a contributor's new row does.
CODE = f"""
import importlib.util, sys, warnings
sys.path.insert(0, {str(ROOT / "tests")!r})
spec = importlib.util.spec_from_file_location("mlr.losses.kinds", {str(ROOT / "mlr/losses/kinds.py")!r})
kinds = sys.modules["mlr.losses.kinds"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kinds)
place = int(sys.argv[1])
row = kinds.Kind("Dh", "depth", "(none)", lambda maps: (maps.error**2 + 0.01).sqrt() - 0.1)
kinds.KIND_TABLE = (*kinds.KIND_TABLE[:place], row, *kinds.KIND_TABLE[place:])
import torch, mlr
from depth_maps import depth_pair, relative_l2
from mlr.losses import KINDS, FAMILIES, reference
from mlr.losses.space import SCALES
warnings.simplefilter("error")
"""

LOSSES = """
space = mlr.LossSpace("all")
assert len(space) == (len(KINDS)) * SCALES == 84 and "Dh" in FAMILIES["depth"] and "Dh/3" in space
assert KINDS.index("Dh") == place
for selection in ("all", "depth", "Dh/*", "*/2-3", "Dh/0+M5/1+Nc/0", "gradient"):
    space = mlr.LossSpace(selection)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for mask in (None, torch.rand(2, 1, 45, 61) < 0.95):
            pred, target = (x.to(dtype) for x in depth_pair(2, 45, 61))
            weights = torch.rand(2, len(space)) + 0.5
            with mlr.backend("reference"):
                truth = torch.ops.mlr.multi_loss(pred, target, weights.to(dtype), list(space.indices), "area", mask)
            got = torch.ops.mlr.multi_loss(pred, target, weights.to(dtype), list(space.indices), "area", mask)
            torch.testing.assert_close(got[0], truth[0], rtol=1e-4, atol=1e-6)
            assert relative_l2(got[1], truth[1]) < (0.05 if dtype == torch.bfloat16 else 1e-3)  # ties of signs
            assert torch.equal(got[2], truth[2])
            pred.requires_grad_()
            out = mlr.MultiLoss(space)(pred, target, weights, mask)
            out.total.backward()
            assert tuple(out.named()) == space.names and pred.grad.isfinite().all()
if "cpp" in mlr.backend_report().split()[2]:
    assert "; Dh by the reference)" in mlr.backend_report().splitlines()[0], mlr.backend_report()
    with mlr.backend("cpp"):
        assert "Dh by the reference" in mlr.backend_report()
        mlr.multi_loss_terms(*depth_pair(1, 9, 9))
    with mlr.backend("reference"):
        assert "Dh" not in mlr.backend_report().splitlines()[0]
    mlr.multi_loss_terms(*depth_pair(1, 9, 9))
compiled = torch.compile(mlr.MultiLoss(), fullgraph=True, backend="aot_eager")
torch.testing.assert_close(compiled(*depth_pair(1, 9, 9)).terms, mlr.MultiLoss()(*depth_pair(1, 9, 9)).terms)
"""

BALANCERS = """
from mlr.balancing import BALANCERS, make_balancer
criterion = mlr.MultiLoss("depth+*/0")
for name in BALANCERS:
    torch.manual_seed(0)
    balancer = make_balancer(name, criterion.space.names, period=1)
    for _ in range(3):
        pred, target = depth_pair(2, 64, 64, noise=float(torch.rand(())))
        out = criterion(pred, target, balancer.weights)
        balancer.observe(out.terms)
        record = balancer.step()
    assert "Dh/0" in record.names and not record.held and all(w > 0 for w in record.weights), name
"""

TRAINING = """
import csv
from mlr.cli import main
warnings.simplefilter("ignore")
out = sys.argv[-1]
main(["train", "--backbone", "resnet18", "--pretrained", "false", "--size", "64x64",
      "--train-length", "8", "--val-length", "2", "--batch-size", "2", "--epochs", "1", "--decoder-channels", "32",
      "--workers", "0", "--out", out])
rows = list(csv.DictReader(open(out + "/balancing.csv")))
assert {row["term"] for row in rows} == set(mlr.LossSpace("all").names), len(rows)
assert all(float(row["weight"]) > 0 for row in rows if row["term"] == "Dh/0")
"""


def run(code, *arguments):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE + code, *map(str, arguments)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("place", [len(KINDS), 2])
def test_a_new_row_of_the_table_works_everywhere(place):
    run(LOSSES + BALANCERS, place)


def test_a_new_row_of_the_table_trains_and_is_logged(tmp_path):
    run(TRAINING, len(KINDS), tmp_path / "run")


# --- the split


class Engine:
    """An engine with some kinds in an order of its own, which counts its calls."""

    def __init__(self, kinds):
        self.kinds, self.calls = kinds, 0

    def __call__(self, pred, target, weights, indices, downsample, mask=None):
        self.calls += 1
        scales_and_kinds = [divmod(i, len(self.kinds)) for i in indices]
        table = [len(KINDS) * scale + KINDS.index(self.kinds[kind]) for scale, kind in scales_and_kinds]
        return reference.multi_loss(pred, target, weights, table, downsample, mask)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kinds", [KINDS[::-1], KINDS[:4], ("Nc", "D"), (*KINDS, "more"), ("more", *KINDS[3:])])
def test_any_kinds_in_any_order_give_the_whole(kinds, weighted, masked):
    pred, target = depth_pair(2, 17, 31)
    mask = torch.rand(2, 17, 31) < 0.9 if masked else None
    engine = Engine(kinds)
    kernel = with_all_kinds(engine, kinds)
    for indices in (list(range(len(KINDS) * SCALES)), [40, 3, 17, 0, 25], [12, 0], [4]):
        weights = torch.rand(2, len(indices)) if weighted else None
        engine.calls = 0
        got = kernel(pred, target, weights, indices, "bicubic", mask)
        truth = reference.multi_loss(pred, target, weights, indices, "bicubic", mask)
        assert torch.equal(got[0], truth[0])
        assert torch.equal(got[2], truth[2])
        torch.testing.assert_close(got[1], truth[1], rtol=1e-5, atol=1e-7)
        assert engine.calls == any(KINDS[i % len(KINDS)] in kinds for i in indices)


def test_an_engine_with_all_kinds_is_left_alone():
    engine = Engine(KINDS)
    assert with_all_kinds(engine, list(KINDS)) is engine
    assert missing_kinds(KINDS) == ()
    assert missing_kinds(KINDS[1:]) == KINDS[:1]


def test_float64_goes_to_the_reference_as_a_whole():
    pred, target = depth_pair(1, 9, 9, torch.float64)
    engine = Engine(KINDS[:4])
    with_all_kinds(engine, KINDS[:4])(pred, target, None, [0, 5], "bicubic")
    assert engine.calls == 0
