from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from distill_data.records import SoftLabels
from distill_data.soft_labels import (
    MANTISSA_BITS,
    empty_soft_labels,
    pad_support,
    round_logprobs,
    select_drawn,
    select_support,
    support_offsets,
    tail_mass,
)
from distill_data.teacher_config import Rounding, SoftLabelSelection


def distributions(tokens: int, vocabulary: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids [T, K] and float64 log-probabilities [T, K] of the likeliest tokens, likeliest first."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (tokens, vocabulary))
    logprobs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    order = np.argsort(-logprobs, axis=1)[:, :width]
    return order, np.take_along_axis(logprobs, order, axis=1)


def selection(min_prob: float, max_support: int) -> SoftLabelSelection:
    return SoftLabelSelection(min_prob=min_prob, max_support=max_support)


@pytest.mark.parametrize(("min_prob", "max_support"), [(0.001, 64), (0.05, 8), (0.0, 16), (1.0, 4), (0.3, 1)])
def test_the_support_is_cut_by_probability_then_by_size(min_prob: float, max_support: int) -> None:
    ids, logprobs = distributions(50, 300, 64)
    labels = select_support(ids, logprobs, logprobs[:, 3], selection(min_prob, max_support))
    offsets = support_offsets(labels.support_counts)
    assert offsets[-1] == len(labels.support_ids) == len(labels.support_logprobs)
    for token in range(50):
        likely = [rank for rank in range(64) if rank == 0 or np.exp(logprobs[token, rank]) >= min_prob]
        kept = likely[:max_support]
        assert labels.support_ids[offsets[token] : offsets[token + 1]].tolist() == ids[token, kept].tolist()
        values = labels.support_logprobs[offsets[token] : offsets[token + 1]]
        np.testing.assert_array_equal(values, round_logprobs(logprobs[token, kept], "graded"))
    assert labels.sampled_logprobs.dtype == np.float32
    np.testing.assert_array_equal(labels.sampled_logprobs, logprobs[:, 3].astype(np.float32))


def test_a_token_just_at_min_prob_is_kept() -> None:
    probabilities = np.array([[0.5, 0.25, 0.1, 0.05]])
    labels = select_support(np.arange(4)[None], np.log(probabilities), np.log([0.5]), selection(0.1, 8))
    assert labels.support_ids.tolist() == [0, 1, 2]


def test_rank_one_stays_where_nothing_is_likely() -> None:
    logprobs = np.log(np.full((2, 5), 0.0001))
    labels = select_support(np.arange(10).reshape(2, 5), logprobs, logprobs[:, 0], selection(0.001, 8))
    assert labels.support_counts.tolist() == [1, 1]
    assert labels.support_ids.tolist() == [0, 5]


def test_drawn_tokens_are_kept_once_and_likeliest_first() -> None:
    drawn = np.array([[4, 4, 4, 7, 9], [2, 2, 2, 2, 2], [1, 2, 3, 4, 5]])
    p = {4: 0.3, 7: 0.05, 9: 0.6, 2: 0.1, 1: 0.2, 3: 0.1, 5: 0.4}
    logprobs = np.log(np.vectorize(p.get)(drawn))
    kept = SoftLabelSelection(kind="sampled", draws=5, rounding="float16")
    labels = select_drawn(drawn, logprobs, np.log([0.3, 0.1, 0.4]), kept)
    assert labels.support_counts.tolist() == [3, 1, 5]
    assert labels.support_ids.tolist() == [9, 4, 7, 2, 5, 4, 1, 2, 3]
    np.testing.assert_allclose(np.exp(labels.support_logprobs), [p[i] for i in labels.support_ids], rtol=2e-3)
    assert labels.support_counts.dtype == np.uint8 and labels.support_logprobs.dtype == np.float16


def test_255_drawn_tokens_fit_their_count() -> None:
    drawn = np.arange(510).reshape(2, 255)
    labels = select_drawn(drawn, np.full(drawn.shape, -5.5), np.zeros(2), SoftLabelSelection(kind="sampled", draws=255))
    assert labels.support_counts.tolist() == [255, 255] and len(labels.support_ids) == 510


def test_255_kept_tokens_fit_their_count() -> None:
    ids, logprobs = distributions(2, 400, 300)
    labels = select_support(ids, logprobs, logprobs[:, 0], selection(0.0, 255))
    assert labels.support_counts.tolist() == [255, 255]
    assert len(labels.support_ids) == 510


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("where", ["support", "sampled"])
def test_what_is_not_finite_is_refused(bad: float, where: str) -> None:
    ids, logprobs = distributions(4, 50, 8)
    sampled = logprobs[:, 0].copy()
    target = sampled if where == "sampled" else logprobs[:, 5]
    target[2] = bad
    with pytest.raises(ValueError, match="not finite"):
        select_support(ids, logprobs, sampled, selection(0.001, 8))
    with pytest.raises(ValueError, match="not finite"):
        select_drawn(ids, logprobs, sampled, SoftLabelSelection(kind="sampled", draws=8))


def test_beyond_max_support_nobody_looks() -> None:
    ids, logprobs = distributions(4, 50, 8)
    logprobs[1, 7] = -np.inf
    assert select_support(ids, logprobs, logprobs[:, 0], selection(0.0, 7)).support_counts.tolist() == [7] * 4


OCTAVES = [(0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0), (8.0, 60.0)]


@pytest.mark.parametrize("rounding", MANTISSA_BITS)
@pytest.mark.parametrize("octave", range(6))
def test_rounding_is_within_half_a_step_of_its_octave(rounding: Rounding, octave: int) -> None:
    bits, (low, high) = MANTISSA_BITS[rounding][octave], OCTAVES[octave]
    values = -np.random.default_rng(octave).uniform(max(low, 2.0**-14), np.nextafter(high, 0), 200_000)
    rounded = round_logprobs(values, rounding)
    assert rounded.dtype == np.float16
    error = np.abs(rounded.astype(np.float64) - values)
    assert (error <= np.abs(values) * 2.0 ** -(bits + 1)).all()
    assert (error > np.abs(values) * 2.0 ** -(bits + 3)).any()  # and not finer than that
    inside = rounded > -high  # rounding up to the next octave's first value is allowed
    assert not (rounded[inside].view(np.uint16) & ((1 << (10 - bits)) - 1)).any()


def test_rounding_of_what_is_almost_sure_is_absolute() -> None:
    values = -np.concatenate([np.geomspace(1e-9, 2.0**-14, 10_000), [0.0]])
    for rounding in MANTISSA_BITS:
        assert np.abs(round_logprobs(values, rounding).astype(np.float64) - values).max() <= 2.0**-19
        assert round_logprobs(np.array([-1.0, -1.5, -0.0]), rounding).tolist() == [-1.0, -1.5, -0.0]


@pytest.mark.parametrize("rounding", MANTISSA_BITS)
def test_rounding_keeps_order_and_rounded_values(rounding: Rounding) -> None:
    values = -np.sort(np.random.default_rng(0).gamma(1.0, 3.0, 100_000))
    once = round_logprobs(values, rounding)
    assert (np.diff(once.astype(np.float64)) <= 0).all()
    np.testing.assert_array_equal(round_logprobs(once, rounding), once)


def test_graded_rounding_moves_a_probability_by_less_than_its_cut_does() -> None:
    """|dp| = p |d log p|: nowhere over 0.0045, and little beside min_prob where p is near it."""
    logprobs = np.log(np.geomspace(1e-4, 0.999, 200_000))
    moved = np.abs(np.exp(round_logprobs(logprobs, "graded").astype(np.float64)) - np.exp(logprobs))
    assert moved.max() < 0.0045
    assert moved[np.exp(logprobs) < 0.002].max() < 0.0003


def test_the_tail_is_what_the_support_leaves() -> None:
    ids, logprobs = distributions(200, 300, 64)
    labels = select_support(ids, logprobs, logprobs[:, 0], selection(0.01, 64))
    offsets = support_offsets(labels.support_counts)
    reference = [
        1.0 - sum(np.exp(float(value)) for value in labels.support_logprobs[start:stop])
        for start, stop in pairwise(offsets)
    ]
    tail = tail_mass(labels)
    assert tail.dtype == np.float32
    np.testing.assert_allclose(tail, np.clip(reference, 0, 1), atol=1e-6)
    exact = 1.0 - np.where(np.exp(logprobs) >= 0.01, np.exp(logprobs), 0).sum(axis=1)
    # d(p) = p |log p| 2^-5 at most per kept token; p |log p| sums to the entropy, under 5 nats here
    np.testing.assert_allclose(tail, exact, atol=5 * 2**-5)


def test_a_support_over_one_has_no_tail() -> None:
    labels = SoftLabels(
        np.zeros(1, np.float32), np.array([2], np.uint8), np.arange(2, dtype=np.int32), np.zeros(2, np.float16)
    )
    assert tail_mass(labels).tolist() == [0.0]


def test_padding_and_back() -> None:
    ids, logprobs = distributions(40, 300, 64)
    labels = select_support(ids, logprobs, logprobs[:, 0], selection(0.01, 64))
    padded_ids, padded = pad_support(labels)
    assert padded_ids.shape == padded.shape == (40, labels.support_counts.max())
    kept = padded > -np.inf
    np.testing.assert_array_equal(kept.sum(axis=1), labels.support_counts)
    np.testing.assert_array_equal(padded_ids[kept], labels.support_ids)
    np.testing.assert_array_equal(padded[kept].astype(np.float16), labels.support_logprobs)
    assert not padded_ids[~kept].any()


def test_no_tokens() -> None:
    labels = empty_soft_labels()
    assert tail_mass(labels).shape == (0,)
    assert support_offsets(labels.support_counts).tolist() == [0]
    ids, padded = pad_support(labels)
    assert ids.shape == padded.shape == (0, 1)
    none = np.empty((0, 8))
    selected = select_support(none.astype(np.int32), none, np.empty(0), selection(0.001, 8))
    assert [len(column) for column in vars(selected).values()] == [0, 0, 0, 0]
