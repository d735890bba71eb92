# SPDX-License-Identifier: Apache-2.0
"""Balancers by the name that the command line gives them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from mlr.balancing.base import LossBalancer
from mlr.balancing.dynamic_average import DynamicWeightAverage
from mlr.balancing.fixed import EqualContribution, FixedWeights
from mlr.balancing.random_weighting import RandomLossWeighting
from mlr.balancing.rebalancing import Rebalancing
from mlr.balancing.relobralo import ReLoBRaLo
from mlr.balancing.uncertainty import UncertaintyWeighting
from mlr.balancing.variation import CoVWeighting
from mlr.utils.suggest import suggest

#: The balancers that ``--balancer`` offers.
BALANCERS: dict[str, type[LossBalancer]] = {
    "fixed": FixedWeights,
    "equal": EqualContribution,
    "rebalancing": Rebalancing,
    "uncertainty": UncertaintyWeighting,
    "cov": CoVWeighting,
    "random": RandomLossWeighting,
    "dwa": DynamicWeightAverage,
    "relobralo": ReLoBRaLo,
}


def make_balancer(name: str, names: Iterable[str], **options: Any) -> LossBalancer:
    """Build a balancer by name.

    Args:
        name: a key of :data:`BALANCERS`.
        names: the losses.
        options: the balancer's own, e.g. ``period=100, lam=1.0``.

    Raises:
        ValueError: for an unknown name or option; the message lists the known ones.
        TypeError: for an option of the wrong type.

    Example:
        >>> make_balancer("equal", ["D/0", "r/0"], period=100)
        EqualContribution(2 losses, period=100.0)
    """
    if name not in BALANCERS:
        hint = suggest(str(name), BALANCERS)
        raise ValueError(f"unknown balancer {name!r}{hint} There are {', '.join(BALANCERS)}")
    cls = BALANCERS[name]
    known = list(inspect.signature(cls).parameters)[1:]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"the balancer {name!r} has no option {', '.join(unknown)}; its options: {', '.join(known)}")
    return cls(names, **options)
