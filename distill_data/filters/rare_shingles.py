"""Which texts can be alike, by their rarest shingles: exact, and quick where thousands share a template.

In any order of all shingles, the first ones of two sets that are alike have one in common (prefix filter; Chaudhuri,
Ganti and Kaushik 2006; with positions, Xiao et al. 2008). With the rarest first, that is hardly ever the template.
"""

from __future__ import annotations

from collections import defaultdict
from math import ceil

_ROUNDING = 1e-9


class RareShingles:
    """Texts by the beginnings of their sets, each a list whose order is the same for all."""

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        self._texts: dict[int, dict[int, dict[int, list[int]]]] = {}  # by size of the set, shingle and its place

    def add(self, row: int, size: int, beginning: list[int]) -> None:
        """Keep a text by the beginning of its set, `prefix_length` long."""
        texts = self._texts.setdefault(size, {})
        for place, shingle in enumerate(beginning):
            texts.setdefault(shingle, defaultdict(list))[place].append(row)

    def may_be_alike(self, size: int, beginning: list[int]) -> set[int]:
        """The texts kept that can be as similar as was asked for to one with this set; all that are, are among them."""
        found: set[int] = set()
        for other, texts in self._texts.items():
            shared = _at_least((size + other) * self._similarity / (1 + self._similarity))
            if shared > min(size, other):
                continue
            for shingle in beginning[: size - shared + 1]:
                for place, rows in texts.get(shingle, {}).items():
                    if place <= other - shared:
                        found.update(rows)
        return found


def prefix_length(size: int, similarity: float) -> int:
    """How many of a set's shingles can be needed to find what it is alike to."""
    return size - _at_least(size * similarity) + 1


def _at_least(shingles: float) -> int:
    return ceil(shingles - _ROUNDING)
