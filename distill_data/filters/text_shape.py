"""How long paragraphs are, how often a text says the same again, and how far it can be compressed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa

from distill_data.filters.flat_text import FlatText, Traces, reduce_rows, sparse_positions, where_said

NGRAM_WORDS = 10
_HASHED_BYTES = 64  # of a longer word the first 64 bytes, the last 8 and the length tell
_SPACE = 32
_CJK_LEAD = (
    0xE3  # lead bytes from here on begin characters of three or four bytes from U+3000: mostly Han, kana, Hangul
)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio, odd (Fibonacci hashing, Knuth)
_MIX_2, _MIX_4 = (np.uint64(pow(int(_MIX), power, 2**64)) for power in (2, 4))
_FOLD = np.uint64(32)


def longest_paragraph(traces: Traces) -> np.ndarray:
    """Characters of the longest paragraph of `completion`.

    A blank line parts paragraphs: two line breaks with at most one character of white space between them. DeepSeek-R1
    dropped long paragraphs (DeepSeek-AI, 2025, 2.3.3).
    """
    text = traces.completion
    breaks = text.newlines
    gaps = np.diff(breaks)
    blank = (gaps == 1) | ((gaps == 2) & (text.bytes[breaks[:-1] + 1] <= _SPACE))
    starts = np.sort(np.concatenate((text.offsets[:-1], breaks[1:][blank] + 1)), kind="stable")
    ends = np.sort(np.concatenate((text.offsets[1:] - 1, breaks[:-1][blank])), kind="stable")
    continuing = sparse_positions((text.text & 0xC0) == 0x80)  # bytes of a character after its first
    lengths = ends - starts - (np.searchsorted(continuing, ends) - np.searchsorted(continuing, starts))
    first = np.searchsorted(starts, text.offsets)
    return where_said(text.valid, reduce_rows(np.maximum, np.maximum(lengths, 0), first, 0))


def repetition(traces: Traces) -> np.ndarray:
    """Share of `completion`'s runs of 10 words that stood in it before; NaN where it has fewer than 10 words.

    Gopher's duplicate n-grams (Rae et al., 2021, table A1) count characters for 5 to 10 words; counting runs of the
    longest kind finds loops of any period and leaves phrases that come again. A word ends with the white space behind
    it; from U+3000 on every character begins one. Words are told apart by 64-bit hashes.
    """
    text = traces.completion
    starts = _word_starts(text)
    words = text.row_counts(starts)
    counts = np.maximum(words - NGRAM_WORDS + 1, 0)
    if not counts.any():
        return np.full(len(words), np.nan, np.float32)
    rows = np.repeat(np.arange(len(words), dtype=np.uint64), words)
    whole = rows[NGRAM_WORDS - 1 :] == rows[: 1 - NGRAM_WORDS]
    hashes = _ngrams(_word_hashes(text, starts))
    bits = len(words).bit_length()
    keys = (rows[: 1 - NGRAM_WORDS] << np.uint64(64 - bits) | hashes >> np.uint64(bits))[whole]
    keys.sort()  # a row's stay together
    again = sparse_positions(keys[1:] == keys[:-1])
    found = np.diff(np.searchsorted(again, np.cumsum(counts) - 1), prepend=0)
    return where_said(text.valid & (counts > 0), found / np.maximum(counts, 1))


def _word_starts(text: FlatText) -> np.ndarray:
    flat = text.text
    filled = flat > _SPACE
    begins = flat >= _CJK_LEAD
    begins[1:] |= filled[1:] > filled[:-1]
    return np.flatnonzero(begins)


def _word_hashes(text: FlatText, starts: np.ndarray) -> np.ndarray:
    """A hash of every word: uint64."""
    lengths = np.diff(starts, append=len(text.text))
    hashes = _mixed(lengths.view(np.uint64) * _MIX ^ _eight_bytes(text, starts, lengths))
    longer = np.flatnonzero(lengths > 8)
    for skip in range(8, _HASHED_BYTES, 8):
        if not len(longer):
            return hashes
        rest = lengths[longer] - skip
        hashes[longer] = _mixed(hashes[longer] ^ _eight_bytes(text, starts[longer] + skip, rest))
        longer = longer[rest > 8]
    hashes[longer] = _mixed(hashes[longer] ^ text.read((starts + lengths)[longer] - 8, 8))
    return hashes


def _eight_bytes(text: FlatText, at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The next 8 bytes, or as many as there are."""
    unused = np.maximum(64 - 8 * lengths, 0)
    return text.read(at, 8) << unused.view(np.uint64)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    hashes = hashes * _MIX
    hashes ^= hashes >> _FOLD
    hashes *= _MIX
    return hashes


def _ngrams(words: np.ndarray) -> np.ndarray:
    """Hashes of every run of 10 words: a polynomial of theirs modulo 2^64, from those of runs of 2, 4 and 8."""
    two = words[:-1] * _MIX + words[1:]
    four = two[:-2] * _MIX_2 + two[2:]
    eight = four[:-4] * _MIX_4 + four[4:]
    return eight[:-2] * _MIX_2 + two[8:]


def compression(traces: Traces) -> np.ndarray:
    """Bytes of `completion` by its bytes as one LZ4 block; NaN where it is empty.

    Whisper tells loops from speech the same way with zlib (Radford et al., 2022, 4.5), which takes ten times as long
    and gives higher ratios.
    """
    text = traces.completion
    codec, buffer = pa.Codec("lz4_raw"), pa.py_buffer(text.bytes)
    bounds = text.offsets.tolist()
    stretches = [buffer.slice(start, stop - 1 - start) for start, stop in pairwise(bounds)]
    packed = np.array([codec.compress(stretch).size for stretch in stretches], np.float64)
    raw = np.diff(text.offsets) - 1
    return where_said(text.valid & (raw > 0), raw / np.maximum(packed, 1))
