"""Which texts hold n-grams of benchmarks: 13 tokens as for GPT-3 (Brown et al. 2020, appendix C).

A benchmark's text that is shorter than an n-gram counts only where it is a whole text. An n-gram in many texts of one
benchmark is its template and does not count. Hashes find the places; what counts is then compared word for word.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.normalise import slices, tokens
from distill_data.filters.shingles import HashedTexts, n_grams

CONTAMINATION_REASONS: dict[str, str] = {"contaminated": "the prompt holds text of a benchmark"}
RECITAL_REASONS: dict[str, str] = {"recited_benchmark": "the thinking or the answer holds text of a benchmark"}
TOUCHED_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # of the texts that were looked at
        ("benchmark", pa.string()),
        ("n_grams", pa.int64()),  # of the text, that are in the benchmark too
        ("share", pa.float64()),  # of all n-grams of the text
        ("example", pa.string()),  # the first of them, normalised
    ]
)


@dataclass(frozen=True)
class BenchmarkTexts:
    """What one benchmark asks, and its answers where those are compared too."""

    name: str
    texts: pa.Array | pa.ChunkedArray
    answers: pa.Array | pa.ChunkedArray | None = None


class Benchmarks:
    """The n-grams of all benchmarks, to look texts up in: up to 48 bytes an n-gram beside the benchmarks' own texts."""

    def __init__(self, benchmarks: Iterable[BenchmarkTexts], size: int = 13, common: int = 10) -> None:
        """Read all benchmarks; n-grams in more than `common` texts of one of them are left out."""
        self._size, self._names = size, []
        self._pieces: list[pa.Array] = []
        self._text_starts: list[int] = []  # number of each benchmark's first text
        found = [_Index(np.empty(0, np.uint64), np.empty(0, np.int32), np.empty(0, np.int32))]
        for benchmark in benchmarks:
            self._names.append(benchmark.name)
            self._text_starts.append(sum(map(len, self._pieces)))
            parts = [part for part in (benchmark.texts, benchmark.answers) if part is not None]
            pieces = [self._add(piece) for part in parts for piece in slices(part)]
            found.append(_once_each(_joined([found[0], *pieces]), common))
        index = _joined(found)
        self._index = index.take(np.argsort(index.hashes, kind="stable"))
        self._piece_starts = np.cumsum([0, *(len(piece) for piece in self._pieces)])
        bits = max(len(index.hashes).bit_length() + 4, 10)
        self._shift = np.uint64(64 - bits)  # at most one in 16 places of the filter is taken
        self._filter = np.zeros(2**bits, bool)
        self._filter[index.hashes >> self._shift] = True

    def touched(self, texts: pa.Array | pa.ChunkedArray) -> pa.Table:
        """Texts with n-grams of a benchmark: TOUCHED_SCHEMA, one row per text and benchmark, in the texts' order."""
        made, start = [TOUCHED_SCHEMA.empty_table()], 0
        for piece in slices(texts):
            made.append(self._touched(piece, HashedTexts.of(piece), start))
            start += len(piece)
        return pa.concat_tables(made)

    def recited(self, texts: pa.Array, most: int = 0, hashed: HashedTexts | None = None) -> pa.Table:
        """Texts with more than `most` n-grams of a benchmark, whole ones: rows of TOUCHED_SCHEMA.

        Unlike with `touched`, a text that is shorter than an n-gram is in none: `42` is the answer to many questions.
        `hashed` are the same texts, where they were hashed before.
        """
        found = self._touched(texts, hashed or HashedTexts.of(texts), 0)
        is_whole = pc.greater_equal(pc.count_substring(found["example"], " "), self._size - 1)
        return found.filter(pc.and_(is_whole, pc.greater(found["n_grams"], most)))

    def _add(self, piece: pa.Array) -> _Index:
        found = n_grams(piece, self._size)
        texts = found.rows() + sum(map(len, self._pieces))
        self._pieces.append(piece)
        return _Index(found.hashes, texts.astype(np.int32), found.places().astype(np.int32))

    def _touched(self, piece: pa.Array, hashed: HashedTexts, start: int) -> pa.Table:
        found = hashed.n_grams(self._size)
        places, entries = self._look_up(found.hashes)
        rows, held = np.searchsorted(found.offsets, places, side="right") - 1, self._index.take(entries)
        words = _words(piece, rows, places - found.offsets[rows], self._size)
        same = pc.equal(words, self._words_of(held)).to_numpy(zero_copy_only=False)
        rows, words, texts = rows[same], words.filter(pa.array(same)), held.texts[same]
        benchmarks = np.searchsorted(self._text_starts, texts, side="right") - 1
        order = np.lexsort((places[same], benchmarks, rows))
        key = rows[order] * len(self._names) + benchmarks[order]
        _, first, counts = np.unique(key, return_index=True, return_counts=True)
        chosen = order[first]
        names = pa.array(self._names, pa.string()).take(pa.array(benchmarks[chosen]))
        share = counts / np.diff(found.offsets)[rows[chosen]]
        columns = [rows[chosen] + start, names, counts, share, words.take(pa.array(chosen))]
        return pa.table(columns, TOUCHED_SCHEMA)

    def _look_up(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in the hashes and entries of the index with the same hash: all pairs."""
        from distill_data.filters.token_loops import places_in

        places = places_in(hashes, self._filter, self._shift)
        left = np.searchsorted(self._index.hashes, hashes[places])
        there = self._index.hashes[np.minimum(left, len(self._index.hashes) - 1)] == hashes[places]
        places, left = places[there], left[there]
        counts = np.searchsorted(self._index.hashes, hashes[places], side="right") - left
        before = np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(places, counts), np.repeat(left, counts) + np.arange(counts.sum()) - before

    def _words_of(self, entries: _Index) -> pa.Array:
        """The n-grams of entries of the index, word for word."""
        texts, numbers = np.unique(entries.texts, return_inverse=True)
        cuts = np.searchsorted(texts, self._piece_starts)
        held = [
            piece.take(pa.array(texts[left:right] - start)).cast(pa.string())
            for piece, start, left, right in zip(self._pieces, self._piece_starts, cuts, cuts[1:], strict=False)
        ]
        return _words(pa.concat_arrays([pa.array([], pa.string()), *held]), numbers, entries.places, self._size)


@dataclass(frozen=True)
class _Index:
    """N-grams and where they are."""

    hashes: np.ndarray  # uint64 [n]
    texts: np.ndarray  # int32 [n]: number of the text among those of all benchmarks
    places: np.ndarray  # int32 [n]: the n-gram's first token therein

    def take(self, entries: np.ndarray) -> _Index:
        return _Index(self.hashes[entries], self.texts[entries], self.places[entries])


def _joined(parts: list[_Index]) -> _Index:
    hashes, texts, places = ([getattr(part, name) for part in parts] for name in ("hashes", "texts", "places"))
    return _Index(np.concatenate(hashes), np.concatenate(texts), np.concatenate(places))


def _once_each(index: _Index, common: int) -> _Index:
    """Of every n-gram its first place; those in more than `common` texts are left out."""
    index = index.take(np.argsort(index.hashes, kind="stable"))
    fresh = np.diff(index.hashes, prepend=~index.hashes[:1]) != 0
    in_other_text = fresh | (np.diff(index.texts, prepend=-1) != 0)
    first = np.flatnonzero(fresh)
    texts = np.add.reduceat(in_other_text, first, dtype=np.int64) if len(first) else first
    return index.take(first[texts <= common])


def _words(texts: pa.Array, rows: np.ndarray, places: np.ndarray, size: int) -> pa.Array:
    """The n-grams that begin at these tokens of these texts, joined by spaces; a shorter text as a whole."""
    used, rows = np.unique(rows, return_inverse=True)
    lists = tokens(texts.take(pa.array(used)))
    starts = np.concatenate(([0], np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(), dtype=np.int64)))
    lengths = np.minimum(starts[rows + 1] - starts[rows] - places, size)
    ends = np.cumsum(lengths)
    at = np.arange(lengths.sum()) + np.repeat(starts[rows] + places - (ends - lengths), lengths)
    offsets = pa.array(np.concatenate(([0], ends)), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, lists.flatten().take(pa.array(at))), " ")


def details(touched: pa.Table, count: int) -> pa.StringArray:
    """Drop detail of each of `count` texts, the first benchmark that it touches; null for one that stays.

    `touched` is what `Benchmarks.touched` or `recited` gave for the texts, or those rows of it that count.
    """
    counts = touched["n_grams"].cast(pa.string())
    words = ["benchmark ", touched["benchmark"], ": ", counts, " n-grams, such as '", touched["example"], "'"]
    said = pc.binary_join_element_wise(*words, "")
    first = pc.index_in(pa.array(np.arange(count)), value_set=touched["row"].combine_chunks())
    return said.take(first).combine_chunks()


def counts_by_benchmark(touched: pa.Table) -> dict[str, int]:
    """How many texts touch each benchmark that is touched."""
    return {found["values"]: found["counts"] for found in pc.value_counts(touched["benchmark"]).to_pylist()}
