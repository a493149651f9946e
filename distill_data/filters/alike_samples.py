"""Near-duplicate answers among one prompt's samples: few enough that all their pairs are compared exactly."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.shingles import NGrams, n_grams

SAMPLE_REASONS: dict[str, str] = {
    "near_duplicate_sample": "an answer to the same prompt that is nearly the same came earlier",
}
_RUN_BYTES = 2**23
_MOST_CELLS = 2**24  # of a table of texts by n-grams: 64 MiB


def alike_samples(texts: pa.Array, groups: np.ndarray, similarity: float, size: int = 5) -> np.ndarray:
    """For every text the first kept one of its own group that it is alike to, itself where it is kept (int64 [n]).

    A text is never dropped for one that was dropped itself, and one without any token is alike to none.

    Args:
        texts: in the order of who came first.
        groups: whose sample each text is (int64 [n]); a group's texts need not stand together.
        similarity: least Jaccard similarity of near-duplicates.
        size: tokens of a shingle.
    """
    first, order = np.arange(len(groups)), np.argsort(groups, kind="stable")
    for run, starts in _runs(texts, groups[order], order):
        rows = order[run]
        shingles = n_grams(texts.take(pa.array(rows)), size)
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            if stop - start > 1:
                first[rows[start:stop]] = rows[start + _first_in_group(shingles, start, stop, similarity)]
    return first


def _runs(texts: pa.Array, groups: np.ndarray, order: np.ndarray) -> Iterator[tuple[slice, list[int]]]:
    """Whole groups whose texts fit in memory together, as places in the order, and where each begins therein."""
    sizes = pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)[order]
    before = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
    begins = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
    ends = np.append(begins[1:], len(groups))
    group = 0
    while group < len(begins):
        full = int(np.searchsorted(before[ends], before[begins[group]] + _RUN_BYTES, side="right"))
        until = max(full, group + 1)
        yield slice(begins[group], ends[until - 1]), (begins[group:until] - begins[group]).tolist()
        group = until


def _first_in_group(shingles: NGrams, start: int, stop: int, similarity: float) -> np.ndarray:
    """For each text of one group the first kept one that it is alike to, numbered from the group's first."""
    whole, seen = shingles.whole[start:stop].tolist(), dict[int, int]()
    same = np.array([seen.setdefault(tokens, row) if tokens else row for row, tokens in enumerate(whole)])
    first = np.arange(stop - start)
    rows = np.array(list(seen.values()), np.int64)
    if len(rows) > 1:
        alike = _similarities([shingles.of(start + row) for row in rows.tolist()]) >= similarity
        kept = np.ones(len(rows), bool)
        for row in range(1, len(rows)):
            earlier = np.flatnonzero(alike[row, :row] & kept[:row])
            if len(earlier):
                kept[row], first[rows[row]] = False, rows[earlier[0]]
    return first[same]


def _similarities(sets: list[np.ndarray]) -> np.ndarray:
    """Jaccard similarity of all pairs (float64 [k, k]); none of the sets is empty."""
    lengths = np.array([len(found) for found in sets])
    vocabulary, column = np.unique(np.concatenate(sets), return_inverse=True)
    row = np.repeat(np.arange(len(sets)), lengths)
    shared = np.zeros((len(sets), len(sets)))
    width = max(_MOST_CELLS // len(sets), 1)
    for left in range(0, len(vocabulary), width):
        inside = (column >= left) & (column < left + width)
        table = np.zeros((len(sets), min(width, len(vocabulary) - left)), np.float32)
        table[row[inside], column[inside] - left] = 1.0
        shared += table @ table.T
    return shared / (lengths[:, None] + lengths[None, :] - shared)
