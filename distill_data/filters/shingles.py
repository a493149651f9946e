"""Texts as sequences and sets of 64-bit hashes of their n-grams (shingles; Broder 1997), without text in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distill_data.filters.normalise import token_hashes

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a token's hash is lost


@dataclass(frozen=True)
class NGrams:
    """The n-grams of n texts, in their order; a text shorter than n tokens is one n-gram, one without tokens none.

    Two n-grams of a corpus of a million share a hash by chance once in 10^7 corpora.
    """

    offsets: np.ndarray  # int64 [n + 1]: where a text's n-grams begin and end
    hashes: np.ndarray  # uint64 [offsets[-1]]
    whole: np.ndarray  # uint64 [n]: hash of all tokens of a text; 0 where there is none

    def of(self, row: int) -> np.ndarray:
        """The set of one text's n-grams: uint64, sorted, each once."""
        found = np.sort(self.hashes[self.offsets[row] : self.offsets[row + 1]])
        return found[np.diff(found, prepend=~found[:1]) != 0]

    def rows(self) -> np.ndarray:
        """Whose each n-gram is (int64 [offsets[-1]])."""
        return np.repeat(np.arange(len(self.whole)), np.diff(self.offsets))

    def places(self) -> np.ndarray:
        """Which token of its text each n-gram begins with (int64 [offsets[-1]]): they are without gaps."""
        return np.arange(len(self.hashes)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))


@dataclass(frozen=True)
class HashedTexts:
    """The tokens of n texts as hashes, made once for n-grams of any size."""

    starts: np.ndarray  # int64 [n + 1]: where a text's tokens begin and end
    hashes: np.ndarray  # uint64 [starts[-1]]

    @classmethod
    def of(cls, texts: pa.Array) -> HashedTexts:
        """The tokens that `normalise` finds."""
        return cls(*token_hashes(texts))

    def take(self, rows: np.ndarray) -> HashedTexts:
        """Some of the texts, in this order."""
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], lengths)
        return HashedTexts(starts, self.hashes[places])

    def n_grams(self, size: int) -> NGrams:
        """The n-grams of `size` tokens of every text, by a polynomial over its tokens' hashes (Karp and Rabin 1987)."""
        from distill_data.filters.token_loops import hash_runs

        return NGrams(*hash_runs(self.starts, self.hashes, size, _FACTOR))


def n_grams(texts: pa.Array, size: int) -> NGrams:
    """The n-grams of `size` tokens of every text."""
    return HashedTexts.of(texts).n_grams(size)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Shared among all n-grams of two sets (sorted, each once); 0 where both are empty."""
    smaller, larger = sorted((one, other), key=len)
    if not len(larger):
        return 0.0
    found = np.minimum(np.searchsorted(larger, smaller), len(larger) - 1)
    shared = np.count_nonzero(larger[found] == smaller)
    return shared / (len(one) + len(other) - shared)


def odd_powers(count: int) -> np.ndarray:
    """1, an odd factor, its square, … modulo 2^64: weights of a polynomial hash."""
    return np.concatenate((np.ones(1, np.uint64), np.cumprod(np.full(max(count - 1, 0), _FACTOR))))[:count]
