"""Loops over the lists of soft labels that numpy has no fast call for; imported only where they are needed.

What does not fit is not noticed: callers give arrays that do.
"""

from __future__ import annotations

import numpy as np

from distill_data.compiled import compiled_in_any_order


@compiled_in_any_order
def join_two(low: np.ndarray, high: np.ndarray, out: np.ndarray) -> None:
    """Numbers of two bytes from arrays of their first and second ones: uint8 [n] each to uint16 [n]."""
    for i in range(len(out)):
        out[i] = np.uint16(low[i]) | np.uint16(np.uint16(high[i]) << np.uint16(8))


@compiled_in_any_order
def join_four(first: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray, out: np.ndarray) -> None:
    """Numbers of four bytes from arrays of their bytes, the lowest first: uint8 [n] each to uint32 [n]."""
    for i in range(len(out)):
        low = np.uint32(first[i]) | np.uint32(second[i]) << np.uint32(8)
        out[i] = low | np.uint32(third[i]) << np.uint32(16) | np.uint32(fourth[i]) << np.uint32(24)


@compiled_in_any_order
def zeros_of_levels(encoded: np.ndarray, count: int, out: np.ndarray) -> int:
    """Where levels of one bit are zero, in Parquet's hybrid of runs and packed bits.

    Args:
        encoded: uint8, the levels.
        count: how many they are.
        out: int64 [at least as many as there are zeros], takes their positions.

    Returns:
        How many zeros there are, or -1: there are fewer levels, or bytes that are none.
    """
    at, position, found = 0, 0, 0
    while position < count:
        header, shift, byte = 0, 0, 128
        while byte >= 128:
            if at >= len(encoded) or shift > 28:
                return -1
            byte = int(encoded[at])
            at += 1
            header |= (byte & 127) << shift
            shift += 7
        length = (header >> 1) * 8 if header & 1 else header >> 1
        needed = header >> 1 if header & 1 else 1
        if length == 0 or at + needed > len(encoded):
            return -1
        end = min(position + length, count)
        if header & 1:
            for i in range(end - position):
                if encoded[at + (i >> 3)] >> (i & 7) & 1 == 0:
                    out[found] = position + i
                    found += 1
        elif encoded[at] > 1:
            return -1
        elif encoded[at] == 0:
            for i in range(position, end):
                out[found] = i
                found += 1
        at += needed
        position = end
    return found


@compiled_in_any_order
def pad_rows(
    counts: np.ndarray,
    ids: np.ndarray,
    logprobs: np.ndarray,
    probabilities: np.ndarray,
    out: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Flat supports to rectangles, and the sum of each one's probabilities.

    Args:
        counts: uint8 [T], entries of every position, at most K.
        ids: int32 [sum of counts].
        logprobs: float32, likewise.
        probabilities: float32, likewise.
        out: int64 [T, K], padded with 0; float32 [T, K], padded with -inf; float32 [T].
    """
    padded_ids, padded, mass = out
    width, at = padded_ids.shape[1], 0
    for t in range(len(counts)):
        count = int(counts[t])
        # A loop for each array: the compiler turns every one into vector instructions.
        id_row, row = padded_ids[t], padded[t]
        total = np.float32(0)
        for j in range(count):
            id_row[j] = ids[at + j]
        for j in range(count):
            row[j] = logprobs[at + j]
        for j in range(count):
            total += probabilities[at + j]
        for j in range(count, width):
            id_row[j] = 0
        for j in range(count, width):
            row[j] = -np.inf
        mass[t] = total
        at += count
