"""How good a distribution over labels is, against the labels that are right. Pure, in float64."""

from __future__ import annotations

import numpy as np

BINS = 10  # of equal width, of the calibration error
_LEAST = 1e-12  # a probability below it counts as this


def accuracy(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Share of rows whose likeliest label is right: float [N, L] against int [N]."""
    return float((probabilities.argmax(axis=1) == right).mean())


def log_loss(probabilities: np.ndarray, right: np.ndarray) -> float:
    """Mean negative log-probability of the right label, in nats."""
    found = probabilities.astype(np.float64)[np.arange(len(right)), right]
    return float(-np.log(np.maximum(found, _LEAST)).mean())


def calibration_error(probabilities: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: by how much confidence and accuracy differ, in bins of equal width, weighted by rows.

    Of the likeliest label alone, as in Guo et al., 2017, "On Calibration of Modern Neural Networks".
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    hit = probabilities.argmax(axis=1) == right
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(which, weights=hit - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


def mean_kl(teacher: np.ndarray, student: np.ndarray) -> float:
    """Mean KL(teacher || student) over all labels, in nats: both float [N, L]."""
    p, q = teacher.astype(np.float64), np.maximum(student.astype(np.float64), _LEAST)
    return float((p * (np.log(np.maximum(p, _LEAST)) - np.log(q))).sum(axis=1).mean())
