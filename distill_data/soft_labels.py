"""Soft labels: select the support of a distribution, pack it, unpack it, and find the tail. Pure and vectorised.

A distribution is kept as some of its tokens with log-probabilities normalised over the full vocabulary: the likeliest
ones, and what is left, 1 - sum(p), is the tail; or ones that were drawn, which stand for all. Nothing is ever
renormalised on disk.
"""

from __future__ import annotations

import math

import numpy as np

from distill_data.records import SoftLabels
from distill_data.teacher_config import Rounding, SoftLabelSelection

# Mantissa bits of log p, by how unlikely the token is: |log p| < 1/2, < 1, < 2, < 4, < 8, and beyond. What an error of
# log p does to a gradient is in proportion to p.
MANTISSA_BITS: dict[Rounding, tuple[int, ...]] = {
    "graded": (5, 6, 6, 5, 4, 3),
    "fine": (7, 8, 8, 7, 6, 5),
    "float16": (10,) * 6,
}


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
        support_logprobs=round_logprobs(kept[mask], selection.rounding),
    )


def select_drawn(
    drawn_ids: np.ndarray, drawn_logprobs: np.ndarray, sampled_logprobs: np.ndarray, selection: SoftLabelSelection
) -> SoftLabels:
    """Every drawn token once, likeliest first, with its own log-probability: how often it was drawn is not kept.

    With D systematic draws a token is among them with probability min(1, D p), so max(p, 1 / D) where it is there and
    0 elsewhere is p in expectation (Horvitz and Thompson, 1952): see `distill_data.student.divergences.drawn_kl`.

    Args:
        drawn_ids: int [T, D], equal ones side by side.
        drawn_logprobs: float [T, D], natural, normalised over the full vocabulary.
        sampled_logprobs: float [T], of the token that was sampled.
        selection: how to round.

    Raises:
        ValueError: a log-probability is not finite.
    """
    if not (np.isfinite(drawn_logprobs).all() and np.isfinite(sampled_logprobs).all()):
        raise ValueError("a log-probability is not finite")
    again = np.zeros(drawn_ids.shape, bool)
    again[:, 1:] = drawn_ids[:, 1:] == drawn_ids[:, :-1]
    keys = np.where(again, np.inf, -drawn_logprobs)
    order = np.argsort(keys, axis=1, kind="stable")
    counts = (~again).sum(axis=1)
    kept = np.arange(drawn_ids.shape[1]) < counts[:, None]
    return SoftLabels(
        sampled_logprobs=sampled_logprobs.astype(np.float32),
        support_counts=counts.astype(np.uint8),
        support_ids=np.take_along_axis(drawn_ids, order, axis=1)[kept].astype(np.int32),
        support_logprobs=round_logprobs(np.take_along_axis(drawn_logprobs, order, axis=1)[kept], selection.rounding),
    )


def round_logprobs(values: np.ndarray, rounding: Rounding) -> np.ndarray:
    """Values as float16 with MANTISSA_BITS bits of mantissa, rounded half up in magnitude; order is kept.

    With b bits the relative error is at most 2^-(b + 1) (absolute at most 2^-25 below 2^-14). Few distinct bit patterns
    compress better than full float16.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    half, mask = _ROUNDINGS[rounding]
    octave = bits >> 23 & 0xFF
    return ((bits + half[octave]) & mask[octave]).view(np.float32).astype(np.float16)


def _by_octave(kept: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Half of what is dropped and the mask of what stays, uint32 [256], by the exponent of a float32."""
    octaves = np.clip(np.arange(256) - 125, 0, len(kept) - 1)  # 126 is [1/2, 1)
    dropped = 23 - np.array(kept)[octaves]  # a float32 has 23 bits of mantissa
    return (1 << (dropped - 1)).astype(np.uint32), (0xFFFFFFFF >> dropped << dropped).astype(np.uint32)


_ROUNDINGS = {rounding: _by_octave(kept) for rounding, kept in MANTISSA_BITS.items()}


def empty_soft_labels() -> SoftLabels:
    """The soft labels of no tokens."""
    return SoftLabels(np.empty(0, np.float32), np.empty(0, np.uint8), np.empty(0, np.int32), np.empty(0, np.float16))


def support_offsets(counts: np.ndarray) -> np.ndarray:
    """Where every position's support starts and ends in the flat arrays: int64 [T + 1]."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def pad_support(labels: SoftLabels) -> tuple[np.ndarray, np.ndarray]:
    """Flat support to rectangles: ids int [T, K] padded with 0, log-probabilities float32 [T, K] with -inf.

    Where every position keeps K tokens nothing is copied but what is converted.
    """
    counts, ids = labels.support_counts, labels.support_ids
    logprobs = labels.support_logprobs.astype(np.float32, copy=False)
    shape = len(counts), int(counts.max(initial=1))
    if len(ids) == math.prod(shape):
        return ids.reshape(shape), logprobs.reshape(shape)
    kept = np.arange(shape[1], dtype=np.uint8) < counts[:, None]
    padded_ids, padded = np.zeros(shape, ids.dtype), np.full(shape, -np.inf, np.float32)
    padded_ids[kept] = ids
    padded[kept] = logprobs
    return padded_ids, padded


def tail_mass(labels: SoftLabels) -> np.ndarray:
    """Probability outside the support, per position: float32 [T], within 0 and 1.

    Rounding can push the support's sum slightly over 1; the tail is then 0.
    """
    offsets = support_offsets(labels.support_counts)
    if not len(labels.support_ids):  # no position keeps anything
        return np.ones(len(labels.support_counts), np.float32)
    mass = np.add.reduceat(np.exp(labels.support_logprobs.astype(np.float64)), offsets[:-1])
    return np.clip(1.0 - mass, 0.0, 1.0).astype(np.float32)
