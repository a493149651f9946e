from __future__ import annotations

import numpy as np

from distill_data.list_loops import logs_of_rest, probability_sums


def sums_of(logprobs: np.ndarray) -> np.ndarray:
    out = np.empty(len(logprobs), np.float32)
    probability_sums(logprobs, out)
    return out


def test_exponentials_are_as_near_as_float32_is_for_every_float16() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    logprobs = every[(every <= 0) & (every > -80)]  # below, they are no normal float32 any more
    np.testing.assert_allclose(sums_of(logprobs[:, None]), np.exp(logprobs.astype(np.float64)), 1e-5, 1e-7)


def test_padding_and_certainty_are_exact() -> None:
    inf = np.float32(np.inf)
    rows = np.array([[0, -inf, -inf], [-inf, -inf, -inf], [-1000, np.log(0.5), -inf]], np.float32)
    assert sums_of(rows).tolist() == [1.0, sums_of(rows)[1], 0.5]
    assert sums_of(rows)[1] < 1e-37


def test_a_support_of_any_width_is_summed_to_float32() -> None:
    random = np.random.default_rng(0)
    for width in range(1, 40):
        logprobs = np.log(random.dirichlet(np.full(width, 0.1), 50).clip(1e-30)).astype(np.float32)
        expected = np.exp(logprobs.astype(np.float64)).sum(1)
        np.testing.assert_allclose(sums_of(logprobs), expected, rtol=1e-6)


def test_the_rest_of_a_probability_is_minus_infinity_where_there_is_none() -> None:
    masses = np.array([0.0, 0.25, 1 - 2**-24, 1.0, 1.0000001], np.float32)
    logs_of_rest(masses)
    np.testing.assert_allclose(masses, [0.0, np.log(0.75), np.log(2**-24), -np.inf, -np.inf], rtol=1e-6)
