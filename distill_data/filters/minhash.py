"""MinHash signatures in bands (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3).

Texts that share a band are candidates; what decides is the exact Jaccard similarity of their shingles. Signatures come
from rensa, whose sketch (Dahlgaard, Knudsen and Thorup 2017) has the error of full MinHash or less. A text's signature
depends on nothing but the text, so neither order nor batches nor threads change who is a candidate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue]: compiled, without type stubs

from distill_data.filters.rare_shingles import prefix_length
from distill_data.filters.shingles import NGrams, jaccard, n_grams, odd_powers

HASHES = 128
SEED = 20_260_101
RECALL = 0.99  # of pairs exactly at the similarity that is asked for; more of those that are more alike
_SPREADS = 3.0  # standard deviations below what is expected at that similarity: one in 700 such pairs is lost
_SKETCH_VALUES = 256
_FIRST_BITS = np.uint64(44)  # what is shifted out of a hash to count it
_MOST_CACHED = 2**24  # hashes: 128 MiB


@dataclass(frozen=True)
class Fingerprints:
    """What is kept in memory of n texts, whatever their length."""

    whole: np.ndarray  # uint64 [n]: hash of all tokens; 0 for a text without any
    bands: np.ndarray  # uint64 [n, bands]: a hash of each band of the signature
    sketch: np.ndarray  # uint8 [n, HASHES]: the last byte of every hash of the signature (Li and König 2010)
    frequency: np.ndarray  # int64 [2^20]: how many shingles of all texts have these first bits


class ShingleSets:
    """The shingles of texts: those of some texts are made at once, others where they are asked for."""

    def __init__(self, pieces: Sequence[pa.Array], size: int) -> None:
        self._pieces, self._size = pieces, size
        self.starts = np.cumsum([0, *(len(piece) for piece in pieces)])
        self._ready, self._shingles = np.empty(0, np.int64), n_grams(pa.array([], pa.string()), size)
        self._cached: OrderedDict[int, np.ndarray] = OrderedDict()
        self._hashes = 0

    def of(self, row: int) -> np.ndarray:
        """The set of one text: uint64, sorted, each once."""
        if (found := self._cached.pop(row, None)) is None:
            place = int(np.searchsorted(self._ready, row))
            is_ready = place < len(self._ready) and self._ready[place] == row
            found = self._shingles.of(place) if is_ready else self._n_grams(np.array([row])).of(0)
            self._hashes += len(found)
        self._cached[row] = found
        while self._hashes > _MOST_CACHED and len(self._cached) > 2:
            self._hashes -= len(self._cached.popitem(last=False)[1])
        return found

    def prepare(self, rows: np.ndarray) -> None:
        """Make the shingles of these texts (ascending) at once: one by one takes fifty times as long."""
        self._ready = np.array([row for row in rows.tolist() if row not in self._cached], np.int64)
        self._shingles = self._n_grams(self._ready)

    def _n_grams(self, rows: np.ndarray) -> NGrams:
        cuts = np.searchsorted(rows, self.starts).tolist()
        taken = [
            self._pieces[number].take(pa.array(rows[left:right] - self.starts[number])).cast(pa.string())
            for number, (left, right) in enumerate(pairwise(cuts))
            if right > left
        ]
        return n_grams(pa.concat_arrays([pa.array([], pa.string()), *taken]), self._size)


class Candidates:
    """Which of n texts are to be compared, and whether they are alike.

    In memory are `HASHES + 16 * bands` bytes a text, and the shingles of some.
    """

    def __init__(self, pieces: Sequence[pa.Array], similarity: float, size: int) -> None:
        self._prints, self._sets = fingerprints(pieces, similarity, size), ShingleSets(pieces, size)
        self.similarity = similarity
        expected = similarity + (1 - similarity) / _SKETCH_VALUES
        self._least_equal = HASHES * expected - _SPREADS * np.sqrt(HASHES * expected * (1 - expected))
        self.same = _first_same(self._prints.whole)
        """For every text the first one with the same tokens (int64 [n]); itself where it has none."""
        self.buckets = _buckets(self._prints, self.same)
        """Numbers of the bands that a text shares with different ones (int64 [n, bands]); -1 where it shares none."""

    def runs(self, rows: np.ndarray) -> Iterator[list[int]]:
        """These rows (ascending), a piece's at a time."""
        for left, right in pairwise(np.searchsorted(rows, self._sets.starts).tolist()):
            if right > left:
                yield rows[left:right].tolist()

    def near(self, row: int, others: Collection[int]) -> list[int]:
        """Those of the others whose sketches allow for the similarity, in their order."""
        if not others:
            return []
        rows = np.array(sorted(others))
        equal = np.count_nonzero(self._prints.sketch[rows] == self._prints.sketch[row], axis=1)
        return rows[equal >= self._least_equal].tolist()

    def prepare(self, near: Mapping[int, list[int]]) -> None:
        """Make ready what is compared first: these texts, and the first that each of them may be alike to."""
        first = (others[0] for others in near.values() if others)
        self._sets.prepare(np.array(sorted({*near, *first}), np.int64))

    def rarest(self, row: int) -> tuple[int, list[int]]:
        """Size of a text's set of shingles, and its beginning, the rarest first, for `RareShingles`."""
        shingles = self._sets.of(row)
        order = np.argsort(self._prints.frequency[shingles >> _FIRST_BITS], kind="stable")
        return len(shingles), shingles[order[: prefix_length(len(shingles), self.similarity)]].tolist()

    def alike(self, row: int, other: int) -> bool:
        """Whether two texts are at least as similar as was asked for."""
        return jaccard(self._sets.of(row), self._sets.of(other)) >= self.similarity


def band_shape(similarity: float) -> tuple[int, int]:
    """How many bands of how many hashes: the fewest candidates that still find RECALL of the pairs at a similarity."""
    shapes = ((HASHES // rows, rows) for rows in range(HASHES, 0, -1))
    return next((shape for shape in shapes if found_share(similarity, *shape) >= RECALL), (HASHES, 1))


def found_share(similarity: float, bands: int, rows: int) -> float:
    """Share of the pairs of a similarity that have a band in common."""
    return 1.0 - (1.0 - similarity**rows) ** bands


def fingerprints(pieces: Sequence[pa.Array], similarity: float, size: int) -> Fingerprints:
    """Fingerprints of all texts, from shingles of `size` tokens."""
    frequency, made = np.zeros(2 ** (64 - int(_FIRST_BITS)), np.int64), []
    for piece in [pa.array([], pa.string()), *pieces]:
        shingles = n_grams(piece, size)
        frequency += np.bincount((shingles.hashes >> _FIRST_BITS).view(np.int64), minlength=len(frequency))
        made.append(_signed(shingles, *band_shape(similarity)))
    whole, signed, sketch = (np.concatenate(parts) for parts in zip(*made, strict=True))
    return Fingerprints(whole, signed, sketch, frequency)


def _signed(shingles: NGrams, bands: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
