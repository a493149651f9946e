from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from distill_data.evaluation.statistics import (
    mcnemar_p,
    paired_ratios,
    paired_shares,
    pass_at_k,
    ratio_interval,
    share_interval,
    sign_flip_p,
)


def test_pass_at_k_is_the_share_of_draws_with_a_right_one() -> None:
    samples = 5
    for k in range(1, samples + 1):
        counted = []
        for right in range(samples + 1):
            draws = list(itertools.combinations([True] * right + [False] * (samples - right), k))
            counted.append(sum(map(any, draws)) / len(draws))
        assert pass_at_k(np.arange(samples + 1), samples, k) == pytest.approx(counted)


def test_pass_at_1_is_accuracy() -> None:
    assert pass_at_k(np.array([0, 3, 4]), 4, 1) == pytest.approx([0.0, 0.75, 1.0])


@pytest.mark.parametrize(
    ("right", "prompts", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_one_sample_a_prompt_gives_wilsons_interval(right: int, prompts: int, low: float, high: float) -> None:
    # 81 of 263 is the example of Newcombe (1998); the others are those of any table.
    found = share_interval(np.array([1.0] * right + [0.0] * (prompts - right)))
    assert found.mean == pytest.approx(right / prompts)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_samples_narrow_an_interval_only_as_far_as_they_differ() -> None:
    alike = share_interval(np.array([1.0, 0.0] * 20), draws=8)
    assert alike == share_interval(np.array([1.0, 0.0] * 20))
    independent = share_interval(np.full(40, 0.5), draws=8)
    assert independent == share_interval(np.array([1.0, 0.0] * 160))
    between = share_interval(np.array([0.25, 0.75] * 20), draws=8)
    widths = [found.high - found.low for found in (independent, between, alike) if found.high and found.low]
    assert widths == sorted(widths) and len(set(widths)) == 3


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Prompts of unlike difficulty, 4 samples each: 95 % intervals of the mean over prompts like them."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        difficulty = random.beta(1.0, 2.0, 40)  # mean 1 / 3
        found = share_interval(random.binomial(4, difficulty) / 4, draws=4)
        assert found.low is not None and found.high is not None
        held += found.low <= 1 / 3 <= found.high
    assert 925 <= held <= 975


def test_a_ratio_of_sums_and_its_interval() -> None:
    # Equal weights: mean 2, standard error 1 / sqrt(3), t(2) = 4.303.
    found = ratio_interval(np.array([1.0, 2.0, 3.0]), np.ones(3))
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    one = ratio_interval(np.array([6.0]), np.array([3.0]))
    assert (one.mean, one.low, one.high) == (2.0, None, None)
    same = ratio_interval(np.array([2.0, 20.0]), np.array([1.0, 10.0]))  # nats are in proportion to tokens
    assert (same.low, same.high) == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize(
    ("won", "lost", "p"), [(1, 9, 0.021484375), (9, 1, 0.021484375), (5, 5, 1.0), (0, 0, 1.0), (0, 6, 0.03125)]
)
def test_mcnemar_is_a_sign_test_of_those_that_differ(won: int, lost: int, p: float) -> None:
    assert mcnemar_p(won, lost) == pytest.approx(p)


def test_all_sign_flips_of_ones_are_mcnemar() -> None:
    differences = np.array([1.0] * 2 + [-1.0] * 9 + [0.0] * 30)
    assert sign_flip_p(differences) == pytest.approx(mcnemar_p(2, 9))


def test_sign_flips_are_what_brute_force_counts() -> None:
    differences = np.array([0.5, -0.25, 0.75, 0.5, 0.0, 0.25, -1.0, 0.5])
    flipped = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    counted = sum(value >= abs(differences.sum()) - 1e-12 for value in flipped) / len(flipped)
    assert sign_flip_p(differences) == pytest.approx(counted)


def test_random_flips_come_near_the_normal_and_are_always_the_same() -> None:
    differences = np.random.default_rng(1).normal(0.2, 1.0, 100)
    z = abs(differences.sum()) / math.sqrt(float(differences @ differences))
    assert sign_flip_p(differences) == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.015)
    assert sign_flip_p(differences) == sign_flip_p(differences.copy())
    assert sign_flip_p(np.full(100, 0.5)) == pytest.approx(1 / 10_001)


def test_differences_are_paired_prompt_by_prompt() -> None:
    ours, others = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0])
    one = paired_shares(ours, others, samples=1)
    assert (one.mean, one.p, one.test) == (0.5, mcnemar_p(2, 0), "McNemar, exact")
    several = paired_shares(ours, others, samples=4)
    assert (several.mean, several.low, several.high) == (one.mean, one.low, one.high)
    assert several.test == "sign flips" and several.p == sign_flip_p(ours - others)
    nats, tokens = np.array([9.0, 30.0, 14.0]), np.array([3, 10, 5])
    apart = paired_ratios(nats + tokens, nats, tokens)  # a nat more at every token, however long the trace
    assert (apart.mean, apart.low, apart.high) == (1.0, None, None)
    assert paired_ratios(nats, nats, tokens).p == 1.0


def test_a_pair_is_surer_than_its_parts() -> None:
    random = np.random.default_rng(2)
    difficulty = random.uniform(0, 1, 60)
    ours, others = np.clip(difficulty + 0.1, 0, 1), difficulty
    paired = paired_ratios(ours, others, np.ones(60))
    alone = ratio_interval(ours, np.ones(60))
    assert paired.low is not None and paired.high is not None and alone.low is not None and alone.high is not None
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low) and paired.low > 0.0 and paired.p < 0.01
