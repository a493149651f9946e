"""Near-duplicate texts: the Jaccard similarity of their shingles reaches a threshold (Broder 1997; Lee et al. 2022,
"Deduplicating Training Data Makes Language Models Better").

Candidates come from MinHash in bands, and from rare shingles where many share a band, and are compared exactly: none is
wrong. Some one in a hundred pairs at the very threshold is missed, and fewer of those that are more alike. 64-bit
hashes stand for n-grams. A text without any token is alike to none.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pyarrow as pa

from distill_data.filters.minhash import Candidates
from distill_data.filters.normalise import slices
from distill_data.filters.rare_shingles import RareShingles

PROMPT_REASONS: dict[str, str] = {
    "near_duplicate_prompt": "a prompt that is nearly the same came earlier",
    "seen_in_other_corpus": "a prompt that is nearly the same is in another corpus",
}
_FULL = 32  # texts in a bucket


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
    first, kept = np.arange(len(candidates.same)), _Kept(candidates)
    for rows in candidates.runs(np.flatnonzero((candidates.buckets >= 0).any(axis=1))):
        candidates.prepare({row: kept.in_buckets(row) for row in rows})
        for row in rows:
            near = kept.near(row) if row >= known else []
            first[row] = next((other for other in near if candidates.alike(row, other)), row)
            if first[row] == row:
                kept.add(row)
    return first[candidates.same]


class _Kept:
    """Texts that are kept, by the bands that they share with others, and by rare shingles where a bucket is full."""

    def __init__(self, candidates: Candidates) -> None:
        self._candidates = candidates
        self._buckets: dict[int, list[int]] = defaultdict(list)
        self._more = RareShingles(candidates.similarity)

    def add(self, row: int) -> None:
        buckets = [self._buckets[number] for number in self._numbers(row)]
        if any(len(rows) >= _FULL for rows in buckets):
            self._more.add(row, *self._candidates.rarest(row))
        for rows in buckets:
            if len(rows) < _FULL:
                rows.append(row)

    def in_buckets(self, row: int) -> list[int]:
        """Those in this text's buckets that it may be alike to."""
        return self._candidates.near(row, set().union(*(self._buckets[number] for number in self._numbers(row))))

    def near(self, row: int) -> list[int]:
        """All that this text may be alike to, in their order."""
        found = set().union(*(self._buckets[number] for number in self._numbers(row)))
        if any(len(self._buckets[number]) >= _FULL for number in self._numbers(row)):
            found |= self._more.may_be_alike(*self._candidates.rarest(row))
        return self._candidates.near(row, found)

    def _numbers(self, row: int) -> list[int]:
        numbers = self._candidates.buckets[row]
        return numbers[numbers >= 0].tolist()


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
    full = np.diff(starts) > _FULL
    more = RareShingles(candidates.similarity)
    for run in candidates.runs(np.unique(rows[np.isin(buckets, buckets[searching & full[buckets]])])):
        candidates.prepare({row: [] for row in run})
        for row in run:
            more.add(row, *candidates.rarest(row))
    rows, buckets = rows[searching], buckets[searching]
    above = first.copy()
    for run in candidates.runs(np.unique(rows)):
        candidates.prepare({row: [] for row in run})
        for row in run:
            mine = buckets[np.searchsorted(rows, row) : np.searchsorted(rows, row, side="right")]
            found = set().union(*(members[starts[b] : starts[b + 1]].tolist() for b in mine if not full[b]))
            if full[mine].any():
                found |= more.may_be_alike(*candidates.rarest(row))
            for other in candidates.near(row, {other for other in found if first[other] != first[row]}):
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
