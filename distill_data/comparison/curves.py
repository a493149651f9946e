"""Held-out curves over tokens, and how many times fewer tokens one needs to reach what another ended at. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, stdev

# 97.5 % quantiles of Student's t distribution for 1 to 30 degrees of freedom.
_T = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
]  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """A held-out figure, lower is better, after so many training tokens; tokens ascend."""

    tokens: list[int]
    values: list[float]

    @property
    def final(self) -> float:
        """What training ended at."""
        return self.values[-1]

    def tokens_to_reach(self, value: float) -> float | None:
        """Tokens at which the curve is first as low as `value`, between looks on a straight line; None for never."""
        if self.values[0] <= value:
            return float(self.tokens[0])
        for (t0, v0), (t1, v1) in pairwise(zip(self.tokens, self.values, strict=True)):
            if v1 <= value:
                return t0 + (t1 - t0) * (v0 - value) / (v0 - v1)
        return None


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; of a single run low and high are None."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Saving:
    """How many times fewer tokens one arm needs to reach what another ended at.

    `factor` is the geometric mean over the seeds that reached it, with its t interval on the logarithm; None where no
    seed did. Below 1, it needed more. `reached` of `seeds` did: with fewer than all, the factor is too favourable.
    Seeds whose other arm ended no lower than it began are not among them: there is nothing to reach.
    """

    factor: Interval | None
    reached: int
    seeds: int  # of which the other arm learnt something


def saving(curves: Sequence[Curve], others: Sequence[Curve]) -> Saving:
    """What `curves` save against `others`, seed by seed: both in the same order."""
    learnt = [(curve, other) for curve, other in zip(curves, others, strict=True) if other.final < other.values[0]]
    factors = []
    for curve, other in learnt:
        tokens = curve.tokens_to_reach(other.final)
        if tokens is not None:
            factors.append(other.tokens[-1] / max(tokens, 1.0))
    if not factors:
        return Saving(None, 0, len(learnt))
    logs = interval([math.log(factor) for factor in factors])
    low, high = (None if bound is None else math.exp(bound) for bound in (logs.low, logs.high))
    return Saving(Interval(math.exp(logs.mean), low, high), len(factors), len(learnt))


def interval(values: Sequence[float]) -> Interval:
    """Mean and 95 % t interval."""
    middle = mean(values)
    if len(values) < 2:
        return Interval(middle, None, None)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(middle, middle - half, middle + half)


def t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t distribution, the normal one's above 30 degrees of freedom."""
    return _T[degrees - 1] if degrees <= len(_T) else 1.96
