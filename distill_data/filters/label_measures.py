"""How long a completion is in tokens, and how sure the teacher was of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa

from distill_data.filters.flat_text import Traces, reduce_rows

# float16 and float32 differ in their exponents' bias by 112 and in their mantissas' widths by 13 bits.
_WIDER_MANTISSA = np.uint32(13)
_WIDER_EXPONENT = np.float32(2.0**112)
_IMPOSSIBLE = np.float32(1000.0)  # exp(-1000) is 0, and 0 times it too
_TINY = np.float32(1e-30)
_PIECE_VALUES = 2**17


def tokens(traces: Traces) -> np.ndarray:
    """`completion_tokens`."""
    return _numbers(traces["completion_tokens"])


def mean_logprob(traces: Traces) -> np.ndarray:
    """`mean_logprob`, nats."""
    return _numbers(traces["mean_logprob"])


def least_logprob(traces: Traces) -> np.ndarray:
    """The lowest of `sampled_logprobs`, nats: how unlikely the least likely sampled token was; NaN without any."""
    values, offsets = _lists(traces["sampled_logprobs"])
    return reduce_rows(np.fmin, values, offsets, np.nan)


def mean_entropy(traces: Traces) -> np.ndarray:
    """Mean entropy over a completion's tokens, nats, from `support_counts` and `support_logprobs`.

    What is outside a support counts as one more token, so this is at most the entropy of the full distribution. Tokens
    without a support do not count; NaN where there are no others.
    """
    logprobs, supports = _lists(traces["support_logprobs"])
    counts, offsets = _lists(traces["support_counts"])
    total = np.zeros(len(offsets) - 1)
    for rows in _pieces(supports):
        stop = rows.stop + 1
        values, tokens = supports[rows.start : stop], offsets[rows.start : stop]
        of_rows = (logprobs[values[0] : values[-1]], values - values[0], counts[tokens[0] : tokens[-1]])
        total[rows] = _entropies(*of_rows, tokens - tokens[0])
    labelled = reduce_rows(np.add, (counts > 0).astype(np.int32), offsets, 0)
    return np.where(labelled > 0, total / np.maximum(labelled, 1), np.nan).astype(np.float32)


def _pieces(offsets: np.ndarray) -> Iterator[slice]:
    """Rows in pieces of some 130,000 values, which stay in a core's cache; rows are never cut."""
    start = 0
    while start < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[start] + _PIECE_VALUES, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _entropies(logprobs: np.ndarray, supports: np.ndarray, counts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Summed entropy of every row's tokens, nats; its values and its tokens begin and end at the offsets."""
    from distill_data.filters.label_loops import support_terms

    inside, terms = support_terms(logprobs.view(np.uint16), counts, _terms())
    tail = np.clip(1.0 - inside, 0.0, 1.0)
    tail[counts == 0] = 0.0
    tail *= -np.log(np.maximum(tail, _TINY))
    return reduce_rows(np.add, terms, supports, 0.0) + reduce_rows(np.add, tail, tokens, 0.0)


@cache
def _terms() -> np.ndarray:
    """Of each log-probability p and -p log p, by its 16 bits: float32 [2^16, 2]."""
    logs = _minus_float32(np.arange(2**16, dtype=np.uint16).view(np.float16))
    p = np.exp(-logs)
    return np.stack([p, p * logs], axis=1)


def _minus_float32(values: np.ndarray) -> np.ndarray:
    """-x of float16 values x at most 0, as float32, infinity as 1000: moving bits takes a third of a cast's time."""
    bits = (values.view(np.uint16) & np.uint16(0x7FFF)).astype(np.uint32)
    bits <<= _WIDER_MANTISSA
    found = bits.view(np.float32)
    found *= _WIDER_EXPONENT
    return np.minimum(found, _IMPOSSIBLE, out=found)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers as float32, null as NaN."""
    return column.cast(pa.float32()).to_numpy()


def _lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists as their values and offsets [R + 1]; null is empty."""
    rows = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    lengths = rows.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    values = rows.flatten()  # leaves out what a null or a slice hides
    return values.to_numpy(zero_copy_only=False), np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
