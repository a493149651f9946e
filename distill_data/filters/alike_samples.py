"""Near-duplicate answers among one prompt's samples: each is compared exactly with all that are kept."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.shingles import n_grams

SAMPLE_REASONS: dict[str, str] = {
    "near_duplicate_sample": "an answer to the same prompt that is nearly the same came earlier",
}
_RUN_BYTES = 2**23


def alike_samples(texts: pa.Array, groups: np.ndarray, similarity: float, size: int = 5) -> np.ndarray:
    """For every text the first kept one of its own group that it is alike to, itself where it is kept (int64 [n]).

    A text is never dropped for one that was dropped itself, and one without any token is alike to none.

    Args:
        texts: in the order of who came first.
        groups: whose sample each text is (int64 [n]); a group's texts need not stand together.
        similarity: least Jaccard similarity of near-duplicates.
        size: tokens of a shingle.
    """
    from distill_data.filters.token_loops import first_alike_in_groups

    first, order = np.arange(len(groups)), np.argsort(groups, kind="stable")
    for run, starts in _runs(texts, groups[order], order):
        rows = order[run]
        shingles = n_grams(texts.take(pa.array(rows)), size)
        whole_groups = np.array([*starts, len(rows)])
        first[rows] = rows[first_alike_in_groups(shingles.offsets, shingles.hashes, whole_groups, similarity)]
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
