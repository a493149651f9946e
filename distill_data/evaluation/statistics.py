"""Estimates over prompts with their intervals, and tests of paired differences. Pure.

Samples of one prompt are alike, so the prompt is the unit everywhere: standard errors are clustered by it, and models
are compared prompt by prompt (Miller, "Adding Error Bars to Evals", 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distill_data.comparison.curves import Interval, t_quantile

_Z = 1.959964  # 97.5 % quantile of the normal distribution
_EXACT_PROMPTS = 16  # up to here all 2^n sign flips are looked at
_FLIPS = 10_000
_FLIPS_AT_ONCE = 500


@dataclass(frozen=True)
class Difference:
    """A model less another, on the same prompts: the mean with its 95 % interval, and a two-sided test of none.

    Low and high are None where every prompt has the same difference, of which no spread can be told.
    """

    mean: float
    low: float | None
    high: float | None
    p: float
    test: str


def pass_at_k(correct: np.ndarray, samples: int, k: int) -> np.ndarray:
    """Probability that one of k samples is right, without bias, prompt by prompt: float64 [prompts].

    1 - C(samples - correct, k) / C(samples, k) (Chen et al., 2021).

    Args:
        correct: how many of a prompt's samples are right, int [prompts].
        samples: of each prompt.
        k: at most `samples`.
    """
    all_of = math.comb(samples, k)
    by_count = np.array([1.0 - math.comb(samples - right, k) / all_of for right in range(samples + 1)])
    return by_count[correct]


def share_interval(shares: np.ndarray, draws: int = 1) -> Interval:
    """The mean of shares with Wilson's 95 % interval, for the effective number of independent draws (Kish).

    That number is p (1 - p) / variance of the mean over prompts, at least the prompts and at most all their draws: with
    one draw a prompt it is Wilson's own. At 0 and 1, where no variance is seen, it is the prompts.

    Args:
        shares: one a prompt, from 0 to 1: of its samples that are right, or pass@k: float64 [prompts].
        draws: independent draws behind each.
    """
    prompts, share = len(shares), float(shares.mean())
    spread = float(shares.var(ddof=1)) / prompts if prompts > 1 else 0.0
    effective = float(prompts)
    if 0.0 < share < 1.0:
        most = prompts * draws
        effective = min(max(share * (1 - share) / spread, prompts), most) if spread else most
    low, high = _wilson(share, effective)
    return Interval(share, low, high)


def ratio_interval(sums: np.ndarray, weights: np.ndarray) -> Interval:
    """sum(sums) / sum(weights) with its 95 % t interval over prompts.

    Args:
        sums: a figure's sum over each prompt's tokens, float64 [prompts].
        weights: the prompt's tokens, [prompts].
    """
    mean, error = _ratio(sums, weights)
    if error is None:
        return Interval(mean, None, None)
    half = t_quantile(len(sums) - 1) * error
    return Interval(mean, mean - half, mean + half)


def paired_shares(ours: np.ndarray, others: np.ndarray, samples: int) -> Difference:
    """Ours less others', both [prompts]: McNemar's exact test where there is one sample a prompt, else sign flips."""
    if samples > 1:
        return paired_ratios(ours, others, np.ones(len(ours)))
    won, lost = int((ours > others).sum()), int((ours < others).sum())
    found = paired_ratios(ours, others, np.ones(len(ours)))
    return Difference(found.mean, found.low, found.high, mcnemar_p(won, lost), "McNemar, exact")


def paired_ratios(ours: np.ndarray, others: np.ndarray, weights: np.ndarray) -> Difference:
    """The ratio of ours less that of others, sums and weights as of `ratio_interval`; tested by sign flips."""
    differences = ours - others
    spread = ratio_interval(differences, weights)
    p = sign_flip_p(differences)
    if spread.low == spread.high:
        return Difference(spread.mean, None, None, p, "sign flips")
    return Difference(spread.mean, spread.low, spread.high, p, "sign flips")


def mcnemar_p(won: int, lost: int) -> float:
    """Two-sided p of McNemar's exact test: the prompts that only one of both got right are fair coins."""
    pairs = won + lost
    tail = sum(math.comb(pairs, count) for count in range(min(won, lost) + 1)) / 2**pairs
    return min(1.0, 2.0 * tail)


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the paired permutation test: under no difference each prompt's has either sign.

    All flips are looked at for up to 16 prompts that differ, else 10,000 random ones, always the same.
    """
    differing = differences[differences != 0.0]
    if not len(differing):
        return 1.0
    least = abs(float(differing.sum())) * (1 - 1e-9)
    exact = len(differing) <= _EXACT_PROMPTS
    as_far = flips = 0
    for signs in _all_signs(len(differing)) if exact else _random_signs(len(differing)):
        as_far += int((np.abs(signs @ differing) >= least).sum())
        flips += len(signs)
    return as_far / flips if exact else (as_far + 1) / (flips + 1)


def _all_signs(count: int) -> Iterator[np.ndarray]:
    yield 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)


def _random_signs(count: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for _ in range(_FLIPS // _FLIPS_AT_ONCE):
        yield 1.0 - 2.0 * random.integers(0, 2, (_FLIPS_AT_ONCE, count))


def _ratio(sums: np.ndarray, weights: np.ndarray) -> tuple[float, float | None]:
    """A ratio of sums and its standard error over prompts; None of one prompt."""
    total = float(weights.sum())
    mean = float(sums.sum()) / total
    prompts = len(sums)
    if prompts < 2:
        return mean, None
    residuals = sums - mean * weights
    return mean, math.sqrt(prompts / (prompts - 1) * float(residuals @ residuals)) / total


def _wilson(share: float, draws: float) -> tuple[float, float]:
    """Wilson's score interval (1927)."""
    squared = _Z**2 / draws
    middle = (share + squared / 2) / (1 + squared)
    half = _Z / (1 + squared) * math.sqrt(share * (1 - share) / draws + squared / (4 * draws))
    return max(0.0, middle - half), min(1.0, middle + half)
