"""Near-duplicate answers among one prompt's samples: each is compared exactly with all that are kept."""

from __future__ import annotations

import numpy as np

from distill_data.filters.shingles import HashedTexts

SAMPLE_REASONS: dict[str, str] = {
    "near_duplicate_sample": "an answer to the same prompt that is nearly the same came earlier",
}


def alike_samples(texts: HashedTexts, groups: np.ndarray, similarity: float, size: int = 5) -> np.ndarray:
    """For every text the first kept one of its own group that it is alike to, itself where it is kept (int64 [n]).

    A text is never dropped for one that was dropped itself, and one without any token is alike to none.

    Args:
        texts: in the order of who came first.
        groups: whose sample each text is (int64 [n]); a group's texts need not stand together.
        similarity: least Jaccard similarity of near-duplicates.
        size: tokens of a shingle.
    """
    from distill_data.filters.token_loops import first_alike_in_groups

    order = np.argsort(groups, kind="stable")
    begins = np.flatnonzero(np.diff(groups[order], prepend=groups[order][:1] - 1))
    shingles = texts.take(order).n_grams(size)
    whole_groups = np.append(begins, len(order))
    first = np.empty(len(order), np.int64)
    first[order] = order[first_alike_in_groups(shingles.offsets, shingles.hashes, whole_groups, similarity)]
    return first
