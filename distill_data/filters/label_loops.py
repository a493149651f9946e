"""Loops over the soft labels of traces; it is imported where one is called, for numba takes a second to import."""

from __future__ import annotations

import numpy as np

from distill_data.compiled import compiled

_BLOCK = 128
_SHORT = 8  # values that are added one after the other


@compiled
def support_terms(bits, counts, table):
    """Sum of p over every token's support (float32 [T]), and -p log p of every value (float32 [V]).

    Floats are added in the order of numpy's `add.reduceat`, so that sums do not depend on who adds.

    Args:
        bits: float16 log-probabilities as uint16 [V], token by token.
        counts: how many each token has: uint8 [T].
        table: p and -p log p by the bits of a log-probability: float32 [2^16, 2].
    """
    inside, terms = np.zeros(len(counts), np.float32), np.empty(len(bits), np.float32)
    p = np.empty(np.iinfo(np.uint8).max, np.float32)
    place = 0
    for token in range(len(counts)):
        count = np.int64(counts[token])
        if count == 0:
            continue
        first = np.uint64(place)
        for nth in range(count):
            value = bits[first + np.uint64(nth)]
            p[nth] = table[value, 0]
            terms[first + np.uint64(nth)] = table[value, 1]
        place += count
        if count > _SHORT:
            inside[token] = p[0] + _pairwise(p, 1, count - 1)
            continue
        rest = np.float32(0.0)
        for nth in range(1, count):
            rest += p[nth]
        inside[token] = p[0] + rest
    return inside, terms


@compiled
def _pairwise(values, start, count):
    """Pairwise summation (Higham 1993) of at most 254 values, halved until numpy's blocks hold them."""
    if count <= _BLOCK:
        return _block(values, start, count)
    left = _half(count)
    middle, right = start + left, count - left
    if right <= _BLOCK:
        return _block(values, start, left) + _block(values, middle, right)
    quarter = _half(right)
    rest = _block(values, middle, quarter) + _block(values, middle + quarter, right - quarter)
    return _block(values, start, left) + rest


@compiled
def _half(count):
    return count // 2 - count // 2 % 8


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
