"""Near-duplicate texts: the Jaccard similarity of their shingles reaches a threshold (Broder 1997; Lee et al. 2022,
"Deduplicating Training Data Makes Language Models Better").

Candidates come from MinHash in bands and are compared exactly, so none is wrong; some one in a hundred pairs at the
very threshold is missed, and fewer of those that are more alike. 64-bit hashes stand for n-grams. A text without any
token is alike to none. Time grows with the square of the rows that share a template and are just below the threshold:
they are candidates of one another.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa

from distill_data.filters.minhash import Candidates
from distill_data.filters.normalise import slices

PROMPT_REASONS: dict[str, str] = {
    "near_duplicate_prompt": "a prompt that is nearly the same came earlier",
    "seen_in_other_corpus": "a prompt that is nearly the same is in another corpus",
}


def first_alike(
    texts: pa.Array | pa.ChunkedArray,
    similarity: float,
    size: int = 5,
    seen: pa.Array | pa.ChunkedArray | None = None,
) -> np.ndarray:
    """For every text the first kept one that it is alike to, in their order (int64 [n]).

    Itself where it is new, and so kept; `-1 - k` where it is alike to text k of `seen`: the first with the same tokens,
    else the first that is similar. Who is kept depends on earlier texts only. A text is never dropped for one that was
    dropped itself.

    Args:
        texts: in the order of who came first.
        similarity: least Jaccard similarity of near-duplicates.
        size: tokens of a shingle.
        seen: texts that came before all others.
    """
    before = [] if seen is None else list(slices(seen))
    known = sum(map(len, before))
    candidates = Candidates([*before, *slices(texts)], similarity, size)
    first = _first_kept(candidates, known)
    return np.where(first < known, -1 - first, first - known)[known:]


def alike_groups(texts: pa.Array | pa.ChunkedArray, similarity: float, size: int = 5) -> np.ndarray:
    """For every text the first one of its group (int64 [n]): connected components of near-duplicates.

    A group is what may not be torn apart: of two texts in different groups none is a near-duplicate of the other. Texts
    that come later can join two groups.
    """
    candidates = Candidates(list(slices(texts)), similarity, size)
    return _joined(candidates, _first_kept(candidates, 0))


def _first_kept(candidates: Candidates, known: int) -> np.ndarray:
    """For every text the first kept one that it is alike to (int64 [n]); the first `known` are all kept."""
    first = np.arange(len(candidates.same))
    kept: dict[int, list[int]] = defaultdict(list)
    for row in candidates.rows():
        buckets = candidates.buckets[row][candidates.buckets[row] >= 0].tolist()
        if row >= known and (others := set().union(*(kept[bucket] for bucket in buckets))):
            near = candidates.near(row, np.array(sorted(others)))
            first[row] = next((other for other in near if candidates.alike(row, other)), row)
        if first[row] == row:
            for bucket in buckets:
                kept[bucket].append(row)
    return first[candidates.same]


def _joined(candidates: Candidates, first: np.ndarray) -> np.ndarray:
    """Groups that are joined where members of different ones are alike.

    In a bucket, members of its largest group wait for the others to look for them: near-duplicates of one text, however
    many, are not compared with each other again.
    """
    rows, bands = np.nonzero(candidates.buckets >= 0)
    buckets = candidates.buckets[rows, bands]
    order = np.argsort(buckets, kind="stable")
    members, starts = rows[order], np.searchsorted(buckets[order], np.arange(buckets.max(initial=-1) + 2))
    searching = first[rows] != _largest_group(buckets, first[rows])[buckets]
    rows, buckets = rows[searching], buckets[searching]
    above = first.copy()
    for row in candidates.rows(np.unique(rows)):
        mine = buckets[np.searchsorted(rows, row) : np.searchsorted(rows, row, side="right")]
        others = np.unique(np.concatenate([members[starts[bucket] : starts[bucket + 1]] for bucket in mine]))
        for other in candidates.near(row, others[first[others] != first[row]]):
            one, two = sorted((_top(above, row), _top(above, other)))
            if one != two and candidates.alike(row, other):
                above[two] = one
    while (higher := above[above]).tolist() != above.tolist():
        above = higher
    return above


def _largest_group(buckets: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """By bucket, the group with the most members in it."""
    order = np.lexsort((groups, buckets))
    begins = np.flatnonzero(np.diff(buckets[order], prepend=-1) | np.diff(groups[order], prepend=-1))
    sizes = np.diff(begins, append=len(order))
    by_size = np.lexsort((sizes, buckets[order][begins]))
    largest = np.full(buckets.max(initial=-1) + 1, -1)
    largest[buckets[order][begins][by_size]] = groups[order][begins][by_size]  # the last one, the largest, stays
    return largest


def _top(above: np.ndarray, row: int) -> int:
    while above[row] != row:
        above[row] = row = int(above[above[row]])
    return row
