"""How far a model's confidence in its likeliest token is from how often that token comes. Pure."""

from __future__ import annotations

import numpy as np

BINS = 15


def confidence_bins(confidence: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Tokens, summed confidence and hits of BINS equally wide bins of confidence: float64 [3, BINS].

    They add up over batches.

    Args:
        confidence: the probability of the likeliest token, [N], from 0 to 1.
        hit: whether it is the token that came, [N].
    """
    at = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return np.stack([np.bincount(at, weights, BINS) for weights in (np.ones(len(at)), confidence, hit)])


def expected_calibration_error(bins: np.ndarray) -> float:
    """Mean over tokens of |confidence - accuracy| of their bin (Naeini et al., 2015; Guo et al., 2017)."""
    tokens, confidence, hits = bins
    return float(np.abs(confidence - hits).sum() / tokens.sum())
