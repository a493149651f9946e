"""Distributions over labels against float64 arithmetic written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distill_data.label_distributions import label_prior, label_probabilities, label_scores

LENGTHS = [1, 3, 2]


@pytest.fixture(scope="module")
def token_logprobs() -> np.ndarray:
    return -np.random.default_rng(0).exponential(2.0, (40, sum(LENGTHS))).astype(np.float32)


def reference(row: np.ndarray, prior: list[float] | None = None) -> list[float]:
    """One row's distribution, label by label."""
    weights, start = [], 0
    for label, length in enumerate(LENGTHS):
        mean = math.fsum(float(value) for value in row[start : start + length]) / length
        weights.append(math.exp(mean) / (1.0 if prior is None else prior[label]))
        start += length
    return [weight / math.fsum(weights) for weight in weights]


def test_labels_of_several_tokens_count_by_their_mean(token_logprobs: np.ndarray) -> None:
    found = label_probabilities(label_scores(token_logprobs, LENGTHS))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [reference(row) for row in token_logprobs], rtol=1e-12)


def test_a_prior_divides(token_logprobs: np.ndarray) -> None:
    scores = label_scores(token_logprobs, LENGTHS)
    prior = label_prior(scores[:3])
    expected = np.mean([reference(row) for row in token_logprobs[:3]], axis=0)
    np.testing.assert_allclose(prior, expected, rtol=1e-12)
    calibrated = label_probabilities(scores, prior)
    np.testing.assert_allclose(calibrated, [reference(row, list(expected)) for row in token_logprobs], rtol=1e-12)
    np.testing.assert_allclose(calibrated.sum(axis=1), 1.0, rtol=1e-12)


def test_what_the_teacher_says_of_nothing_becomes_no_preference(token_logprobs: np.ndarray) -> None:
    scores = label_scores(token_logprobs[:1], LENGTHS)
    np.testing.assert_allclose(label_probabilities(scores, label_prior(scores)), 1 / 3, rtol=1e-12)


def test_each_row_may_have_a_prior_of_its_own(token_logprobs: np.ndarray) -> None:
    scores = label_scores(token_logprobs[:2], LENGTHS)
    priors = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    both = label_probabilities(scores, priors)
    for row in range(2):
        np.testing.assert_allclose(both[row], label_probabilities(scores[row : row + 1], priors[row])[0], rtol=1e-12)


def test_log_probabilities_that_no_float_can_hold_the_exponential_of() -> None:
    found = label_probabilities(label_scores(np.array([[-2000.0, -2001.0]]), [1, 1]))
    np.testing.assert_allclose(found, [[1 / (1 + math.exp(-1)), 1 / (1 + math.e)]], rtol=1e-12)
