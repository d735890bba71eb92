# SPDX-License-Identifier: Apache-2.0
"""Balancers that are given losses which no sound training gives."""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
import torch
from torture.trials import Campaign, Counts, Trial, check

from mlr.balancing import BALANCERS, LossBalancer, lambda_staircase, make_balancer
from mlr.balancing.record import WEIGHT_RANGE
from mlr.losses.space import LossSpace

NAMES = LossSpace("all").names
#: Balancers in a trial.
CASES = 10
#: What a loss becomes now and then.
POISON = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -1.0, 0.0, 1e30, 1e-30)


def losses(random: np.random.Generator, count: int, poisoned: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Losses [B, n] of a batch, and counts or None."""
    batch = int(random.integers(1, 5))
    terms = torch.from_numpy(random.lognormal(0, 3, (batch, count))).float()
    for _ in range(random.poisson(3) if random.random() < poisoned else 0):
        value = float(random.choice(POISON))
        kind, row, column = random.random(), random.integers(batch), random.integers(count)
        if kind < 0.5:
            terms[row, column] = value
        elif kind < 0.8:
            terms[:, column] = value
        elif kind < 0.9:
            terms[row] = value
        else:
            terms[:] = value
    if random.random() < 0.5:
        return terms, None
    counts = torch.from_numpy(random.integers(0, 4, (batch, count)))
    if random.random() < 0.2:
        counts[:] = 0
    return torch.where(counts > 0, terms, 0), counts


def check_weights(balancer: LossBalancer) -> None:
    """Fail unless the weights can be in force."""
    weights = balancer.weights
    check(weights.isfinite().all(), f"weights are {weights.tolist()}")
    check((weights > 0).all(), f"weights are {weights.tolist()}")
    check((weights <= WEIGHT_RANGE[1]).all(), f"weights are {weights.tolist()}")


def through_a_file(state: dict) -> dict:
    """A state that was saved and read again."""
    file = io.BytesIO()
    torch.save(state, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def trial(given: Trial) -> Counts:
    """Some balancers on some batches each, one of them saved and continued on the way."""
    random, counts = given.random, {"batches": 0, "rebalancings": 0}
    warnings.simplefilter("ignore")
    for _ in range(CASES):
        name = str(random.choice(list(BALANCERS)))
        count = int(random.choice([1, 2, 7, len(NAMES)]))
        options = {"lam": lambda_staircase()} if name == "rebalancing" and random.random() < 0.5 else {}
        period = float(random.choice([1, 3, 3.5, 0.75]))
        balancer = make_balancer(name, NAMES[:count], period=period, **options)
        copied = None
        poisoned = float(random.choice([0.0, 0.2, 1.0]))
        steps = int(random.integers(4, 40))
        saved = int(random.integers(steps))
        for step in range(steps):
            if step == saved:
                copied = make_balancer(name, NAMES[:count], period=period, **copy.deepcopy(options))
                copied.load_state_dict(through_a_file(balancer.state_dict()))
            terms, valid = losses(random, count, poisoned)
            records = []
            for one in filter(None, (balancer, copied)):
                one.observe(terms, valid)
                records.append(one.step())
                check_weights(one)
            counts["batches"] += 1
            counts["rebalancings"] += records[0] is not None
            if copied is not None:
                same = torch.equal(balancer.weights, copied.weights) and repr(records[0]) == repr(records[1])
                check(same, f"{name}: a continued balancer differs")
    return counts


CAMPAIGN = Campaign(
    "balancers",
    "Every balancer on losses that are NaN, infinite, huge, negative, 0 or absent. Weights stay positive, finite and "
    "in their range, and a balancer that was saved in the middle goes on to the bit.",
    trial,
    share=1,
)
