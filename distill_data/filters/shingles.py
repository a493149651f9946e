"""Texts as sequences and sets of 64-bit hashes of their n-grams (shingles; Broder 1997), without text in memory."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from distill_data.filters.normalise import tokens

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


def n_grams(texts: pa.Array, size: int) -> NGrams:
    """The n-grams of `size` tokens of every text, by a polynomial over its tokens' hashes (Karp and Rabin 1987)."""
    starts, hashed = _token_hashes(texts)
    lengths = np.diff(starts)
    length = np.repeat(lengths, lengths)  # of each token's text
    place = np.arange(len(hashed)) - np.repeat(starts[:-1], lengths)
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(hashed * odd_powers(int(lengths.max(initial=0)))[place])))
    whole = sums[starts[1:]] - sums[starts[:-1]]
    windows, complete = np.zeros_like(hashed), max(len(hashed) - size + 1, 0)
    for ahead, power in enumerate(odd_powers(size)):
        windows[:complete] += hashed[ahead : ahead + complete] * power
    short = (lengths < size) & (lengths > 0)
    windows[starts[:-1][short]] = whole[short]
    kept = np.flatnonzero(place + size <= np.maximum(length, np.where(place == 0, size, 0)))
    counts = np.where(lengths >= size, lengths - size + 1, np.minimum(lengths, 1))
    return NGrams(np.concatenate(([0], np.cumsum(counts))), windows[kept], whole)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Shared among all n-grams of two sets (sorted, each once); 0 where both are empty."""
    smaller, larger = sorted((one, other), key=len)
    if not len(larger):
        return 0.0
    found = np.minimum(np.searchsorted(larger, smaller), len(larger) - 1)
    shared = np.count_nonzero(larger[found] == smaller)
    return shared / (len(one) + len(other) - shared)


def _token_hashes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each text's tokens begin and end (int64 [n + 1]), and the hashes of all of them (uint64)."""
    lists = tokens(texts)
    words = lists.flatten().dictionary_encode()
    vocabulary = words.dictionary.cast(pa.binary()).to_pylist()
    hashes = np.fromiter(map(xxh3_64_intdigest, vocabulary), np.uint64, len(vocabulary))
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))), hashes[words.indices.to_numpy()]


def odd_powers(count: int) -> np.ndarray:
    """1, an odd factor, its square, … modulo 2^64: weights of a polynomial hash."""
    return np.concatenate((np.ones(1, np.uint64), np.cumprod(np.full(max(count - 1, 0), _FACTOR))))[:count]
