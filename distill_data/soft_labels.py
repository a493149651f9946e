"""Soft labels: select the support of a distribution, pack it, unpack it, and find the tail. Pure and vectorised.

A distribution is kept as its likeliest tokens with log-probabilities normalised over the full vocabulary;
what is left, 1 - sum(p), is the tail. Nothing is ever renormalised on disk.
"""

from __future__ import annotations

import numpy as np

from distill_data.config import SoftLabelSelection
from distill_data.records import SoftLabels

MANTISSA_BITS = 6
_DROPPED_BITS = 23 - MANTISSA_BITS  # float32 has 23


def select_support(
    top_ids: np.ndarray, top_logprobs: np.ndarray, sampled_logprobs: np.ndarray, selection: SoftLabelSelection
) -> SoftLabels:
    """Cut the support by probability: rank 1, and every token with p >= min_prob, up to max_support.

    Args:
        top_ids: int [T, K], the K likeliest tokens of every position, likeliest first.
        top_logprobs: float [T, K], natural, normalised over the full vocabulary.
        sampled_logprobs: float [T], of the token that was sampled.
        selection: where to cut.

    Raises:
        ValueError: a log-probability is not finite.
    """
    kept = top_logprobs[:, : selection.max_support]
    if not (np.isfinite(kept).all() and np.isfinite(sampled_logprobs).all()):
        raise ValueError("a log-probability is not finite")
    threshold = np.log(selection.min_prob) if selection.min_prob > 0 else -np.inf
    mask = kept >= threshold
    mask[:, :1] = True
    return SoftLabels(
        sampled_logprobs=sampled_logprobs.astype(np.float32),
        support_counts=mask.sum(axis=1).astype(np.uint8),
        support_ids=top_ids[:, : selection.max_support][mask].astype(np.int32),
        support_logprobs=round_mantissa(kept[mask]),
    )


def round_mantissa(values: np.ndarray) -> np.ndarray:
    """Values as float16 with MANTISSA_BITS bits of mantissa, rounded once, half up in magnitude.

    Relative error at most 2^-7 (absolute at most 2^-25 below 2^-14); fewer distinct bit patterns compress better than
    full float16.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    mask = np.uint32(0xFFFFFFFF << _DROPPED_BITS & 0xFFFFFFFF)
    return ((bits + np.uint32(1 << (_DROPPED_BITS - 1))) & mask).view(np.float32).astype(np.float16)


def empty_soft_labels() -> SoftLabels:
    """The soft labels of no tokens."""
    return SoftLabels(np.empty(0, np.float32), np.empty(0, np.uint8), np.empty(0, np.int32), np.empty(0, np.float16))


def support_offsets(counts: np.ndarray) -> np.ndarray:
    """Where every position's support starts and ends in the flat arrays: int64 [T + 1]."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def pad_support(labels: SoftLabels) -> tuple[np.ndarray, np.ndarray]:
    """Flat support to rectangles: ids int32 [T, K] padded with 0, log-probabilities float32 [T, K] with -inf."""
    counts = labels.support_counts.astype(np.int64)
    width = int(counts.max(initial=1))
    mask = np.arange(width) < counts[:, None]
    ids = np.zeros((len(counts), width), np.int32)
    logprobs = np.full((len(counts), width), -np.inf, np.float32)
    ids[mask] = labels.support_ids
    logprobs[mask] = labels.support_logprobs
    return ids, logprobs


def tail_mass(labels: SoftLabels) -> np.ndarray:
    """Probability outside the support, per position: float32 [T], within 0 and 1.

    Rounding can push the support's sum slightly over 1; the tail is then 0.
    """
    offsets = support_offsets(labels.support_counts)
    if len(offsets) == 1:
        return np.empty(0, np.float32)
    mass = np.add.reduceat(np.exp(labels.support_logprobs.astype(np.float64)), offsets[:-1])
    return np.clip(1.0 - mass, 0.0, 1.0).astype(np.float32)
