"""MinHash signatures in bands (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3).

Texts that share a band are candidates; what decides is the exact Jaccard similarity of their shingles. Signatures come
from rensa, whose sketch (Dahlgaard, Knudsen and Thorup 2017) has the error of full MinHash or less. A text's signature
depends on nothing but the text, so neither order nor batches nor threads change who is a candidate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]: compiled, without type stubs

from distill_data.filters.shingles import NGrams, jaccard, n_grams, odd_powers

HASHES = 128
SEED = 20_260_101
RECALL = 0.99  # of pairs exactly at the similarity that is asked for; more of those that are more alike
_SPREADS = 3.0  # standard deviations below what is expected at that similarity: one in 700 such pairs is lost
_SKETCH_VALUES = 256
_MOST_CACHED = 2**24  # hashes: 128 MiB


@dataclass(frozen=True)
class Fingerprints:
    """What is kept in memory of n texts, whatever their length."""

    whole: np.ndarray  # uint64 [n]: hash of all tokens; 0 for a text without any
    bands: np.ndarray  # uint64 [n, bands]: a hash of each band of the signature
    sketch: np.ndarray  # uint8 [n, HASHES]: the last byte of every hash of the signature (Li and König 2010)


class ShingleSets:
    """The shingles of texts, one text at a time; made again where they are no longer in memory."""

    def __init__(self, pieces: Sequence[pa.Array], size: int) -> None:
        self._pieces, self._size = pieces, size
        self._starts = np.cumsum([0, *(len(piece) for piece in pieces)])
        self._ready, self._shingles = np.empty(0, np.int64), n_grams(pa.array([], pa.string()), size)
        self._cached: OrderedDict[int, np.ndarray] = OrderedDict()
        self._hashes = 0

    def of(self, row: int) -> np.ndarray:
        """The set of one text: uint64, sorted, each once."""
        if (found := self._cached.pop(row, None)) is None:
            found = self._make(row)
            self._hashes += len(found)
        self._cached[row] = found
        while self._hashes > _MOST_CACHED and len(self._cached) > 2:
            self._hashes -= len(self._cached.popitem(last=False)[1])
        return found

    def prepared(self, rows: np.ndarray) -> Iterator[int]:
        """The rows (ascending) one by one; their shingles are made a piece at a time, which takes less."""
        cuts = np.searchsorted(rows, self._starts).tolist()
        for number, (start, stop) in enumerate(pairwise(cuts)):
            if stop > start:
                self._ready = rows[start:stop]
                self._shingles = self._n_grams(number, self._ready)
                yield from self._ready.tolist()

    def _make(self, row: int) -> np.ndarray:
        place = int(np.searchsorted(self._ready, row))
        if place < len(self._ready) and self._ready[place] == row:
            return self._shingles.of(place)
        return self._n_grams(int(np.searchsorted(self._starts, row, side="right")) - 1, np.array([row])).of(0)

    def _n_grams(self, number: int, rows: np.ndarray) -> NGrams:
        return n_grams(self._pieces[number].take(pa.array(rows - self._starts[number])), self._size)


class Candidates:
    """Which of n texts are to be compared, and whether they are alike.

    In memory are `HASHES + 16 * bands` bytes a text, and the shingles of some.
    """

    def __init__(self, pieces: Sequence[pa.Array], similarity: float, size: int) -> None:
        self._prints, self._sets = fingerprints(pieces, similarity, size), ShingleSets(pieces, size)
        self._similarity = similarity
        expected = similarity + (1 - similarity) / _SKETCH_VALUES
        self._least_equal = HASHES * expected - _SPREADS * np.sqrt(HASHES * expected * (1 - expected))
        self.same = _first_same(self._prints.whole)
        """For every text the first one with the same tokens (int64 [n]); itself where it has none."""
        self.buckets = _buckets(self._prints, self.same)
        """Numbers of the bands that a text shares with different ones (int64 [n, bands]); -1 where it shares none."""

    def rows(self, rows: np.ndarray | None = None) -> Iterator[int]:
        """These texts, or all that share a band with another one, in their order."""
        return self._sets.prepared(np.flatnonzero((self.buckets >= 0).any(axis=1)) if rows is None else rows)

    def near(self, row: int, others: np.ndarray) -> list[int]:
        """Those of the others whose sketches allow for the similarity, in their order."""
        equal = np.count_nonzero(self._prints.sketch[others] == self._prints.sketch[row], axis=1)
        return others[equal >= self._least_equal].tolist()

    def alike(self, row: int, other: int) -> bool:
        """Whether two texts are at least as similar as was asked for."""
        return jaccard(self._sets.of(row), self._sets.of(other)) >= self._similarity


def band_shape(similarity: float) -> tuple[int, int]:
    """How many bands of how many hashes: the fewest candidates that still find RECALL of the pairs at a similarity."""
    shapes = ((HASHES // rows, rows) for rows in range(HASHES, 0, -1))
    return next((shape for shape in shapes if found_share(similarity, *shape) >= RECALL), (HASHES, 1))


def found_share(similarity: float, bands: int, rows: int) -> float:
    """Share of the pairs of a similarity that have a band in common."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def fingerprints(pieces: Sequence[pa.Array], similarity: float, size: int) -> Fingerprints:
    """Fingerprints of all texts, from shingles of `size` tokens."""
    made = [_fingerprints(n_grams(piece, size), *band_shape(similarity)) for piece in [pa.array([], "string"), *pieces]]
    return Fingerprints(*(np.concatenate(parts) for parts in zip(*made, strict=True)))


def _fingerprints(shingles: NGrams, bands: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    offsets = shingles.offsets.astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles.hashes, offsets, HASHES, SEED).to_rows()
    signatures = np.array(matrix, np.uint32).reshape(-1, HASHES)
    sketch = (signatures % _SKETCH_VALUES).astype(np.uint8)
    cut = signatures[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
    return shingles.whole, cut @ odd_powers(rows), sketch


def _first_same(whole: np.ndarray) -> np.ndarray:
    _, index, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return np.where(whole == 0, np.arange(len(whole)), index[inverse])


def _buckets(prints: Fingerprints, same: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero((same == np.arange(len(same))) & (prints.whole != 0))
    numbers = np.full(prints.bands.shape, -1, np.int64)
    made = 0
    for band in range(prints.bands.shape[1]):
        values, inverse, counts = np.unique(prints.bands[rows, band], return_inverse=True, return_counts=True)
        numbers[rows, band] = np.where(counts > 1, np.arange(made, made + len(values)), -1)[inverse]
        made += len(values)
    return numbers
