"""Loops over the soft labels of traces; it is imported where one is called, for numba takes a second to import."""

from __future__ import annotations

import numpy as np

from distill_data.filters.compiled import compiled

_BLOCK = 128


@compiled
def support_terms(bits, counts, p_of, terms_of):
    """Sum of p over every token's support (float32 [T]), and -p log p of every value (float32 [V]).

    Floats are added in the order of numpy's `add.reduceat`, so that sums do not depend on who adds.

    Args:
        bits: float16 log-probabilities as uint16 [V], token by token.
        counts: how many each token has: uint8 [T].
        p_of: p by the bits of a log-probability: float32 [2^16].
        terms_of: -p log p by the same.
    """
    inside, terms = np.zeros(len(counts), np.float32), np.empty(len(bits), np.float32)
    p = np.empty(np.iinfo(np.uint8).max, np.float32)
    place = 0
    for token in range(len(counts)):
        for nth in range(counts[token]):
            value = bits[place]
            p[nth] = p_of[value]
            terms[place] = terms_of[value]
            place += 1
        if counts[token]:
            inside[token] = p[0] + _pairwise(p, 1, counts[token] - 1)
    return inside, terms


@compiled
def _pairwise(values, start, count):
    """Pairwise summation (Higham 1993) of at most two of numpy's blocks."""
    if count <= _BLOCK:
        return _block(values, start, count)
    half = count // 2
    half -= half % 8
    return _block(values, start, half) + _block(values, start + half, count - half)


@compiled
def _block(values, start, count):
    if count < 8:
        total = np.float32(0.0)
        for place in range(start, start + count):
            total += values[place]
        return total
    a, b, c, d = values[start], values[start + 1], values[start + 2], values[start + 3]
    e, f, g, h = values[start + 4], values[start + 5], values[start + 6], values[start + 7]
    whole = start + count - count % 8
    for place in range(start + 8, whole, 8):
        a += values[place]
        b += values[place + 1]
        c += values[place + 2]
        d += values[place + 3]
        e += values[place + 4]
        f += values[place + 5]
        g += values[place + 6]
        h += values[place + 7]
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for place in range(whole, start + count):
        total += values[place]
    return total
