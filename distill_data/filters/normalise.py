"""Texts as they are compared: case, punctuation and white space of two copies may differ, words and numbers may not.

A token is a word, a mathematical sign, or one character of a script that is written without spaces (Chinese, Japanese,
Thai, Lao, Khmer, Burmese), so that n tokens are n words here and n characters there. `-` and `*` are signs where an
operand follows (`3 - 4`, `2*x`) and punctuation elsewhere (`well-known`, `**bold**`): without that, two sums of the
same numbers would be one text.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh3_64_intdigest

from distill_data.filters.code_points import BRACKET, DOUBTFUL, KINDS, PUNCTUATION, SIGN, TYPOGRAPHIC, code_points

_SLICE_ROWS = 4096
_SLICE_BYTES = 2**24
_END, _SPACE, _ASTERISK, _ZERO, _NINE, _A, _Z = b"\n *09az"


def normalised(texts: pa.Array) -> pa.Array:
    """Every text as its tokens, joined by single spaces; empty where there is none, also for null."""
    return pc.fill_null(pc.binary_join(tokens(texts), " "), "")


def tokens(texts: pa.Array) -> pa.ListArray:
    """The tokens of every text (list<string>): NFKC, lower case, no punctuation; null for a text without any."""
    text = _lowered(texts)
    for typographic, written in TYPOGRAPHIC.items():
        text = pc.replace_substring(text, typographic, written)
    text = pc.ascii_trim_whitespace(_apart(pc.replace_substring_regex(text, PUNCTUATION, " ")))
    return pc.ascii_split_whitespace(pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text))


def token_hashes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each text's tokens begin and end (int64 [n + 1]), and the XXH3 hash of every token (uint64)."""
    from distill_data.filters.token_loops import hash_tokens, rows_beyond

    stable, meanings = code_points()
    rows = pc.fill_null(texts.cast(pa.string()), "")
    beyond = pa.array(rows_beyond(*_bytes(rows), stable))
    if pc.any(beyond).as_py():
        rows = pc.replace_with_mask(rows, beyond, _settled(rows.filter(beyond), stable))
    starts, hashes, longer, ends, spelled = hash_tokens(*_bytes(rows), meanings)
    raw = spelled.tobytes()
    hashes[longer] = [xxh3_64_intdigest(raw[start:end]) for start, end in pairwise([0, *ends.tolist()])]
    return starts, hashes


def _settled(rows: pa.StringArray, stable: np.ndarray) -> pa.StringArray:
    """The rows with what is not stable in them as `_lowered` writes it.

    A stable code point takes no part in composing what comes before it, so the text around a few others stays as it is:
    to normalise whole texts takes ten times as long.
    """
    from distill_data.filters.token_loops import copied_runs, spliced, unstable_runs

    data, offsets = _bytes(rows)
    starts, ends = unstable_runs(data, offsets, stable)
    runs = _strings(*copied_runs(data, starts, ends)).dictionary_encode()
    written = _lowered(runs.dictionary).take(runs.indices)
    return _strings(*spliced(data, offsets, starts, ends, *_bytes(written)))


def _strings(data: np.ndarray, offsets: np.ndarray) -> pa.StringArray:
    """UTF-8 (uint8) and where its rows begin and end (int32 [n + 1]) as an array."""
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def _bytes(rows: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """The UTF-8 of an array without nulls, and where its rows begin and end therein."""
    _, offsets, content = rows.buffers()
    if not len(rows):
        return np.empty(0, np.uint8), np.zeros(1, np.int32)
    data = np.empty(0, np.uint8) if content is None else np.frombuffer(content, np.uint8)
    return data, np.frombuffer(offsets, np.int32)[rows.offset : rows.offset + len(rows) + 1]


def _lowered(texts: pa.Array) -> pa.StringArray:
    text = pc.utf8_normalize(pc.fill_null(texts.cast(pa.string()), ""), form="NFKC")
    return pc.utf8_normalize(pc.utf8_lower(text), form="NFKC")  # lower letters may compose with marks anew


def slices(texts: pa.Array | pa.ChunkedArray) -> Iterator[pa.Array]:
    """The texts in runs of bounded memory: 4,096 rows or 16 MiB, whichever is less; a longer text alone."""
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        ends = np.cumsum(pc.fill_null(pc.binary_length(chunk), 0).to_numpy(zero_copy_only=False), dtype=np.int64)
        start = 0
        while start < len(chunk):
            before = ends[start - 1] if start else 0
            full = int(np.searchsorted(ends, before + _SLICE_BYTES, side="right"))
            stop = min(max(full, start + 1), start + _SLICE_ROWS, len(chunk))
            yield chunk.slice(start, stop - start)
            start = stop


def _apart(texts: pa.Array) -> pa.Array:
    """The texts with spaces around every code point that is a token of its own, and a line's end after each."""
    lines = pc.binary_join_element_wise(texts, "", "\n")  # no sign looks for its operand in the next text
    offsets, content = np.frombuffer(lines.buffers()[1], np.int32)[: len(lines) + 1], lines.buffers()[2].to_pybytes()
    if content.isascii():
        codes, letters = np.frombuffer(content, np.uint8).copy(), offsets
        kinds = np.frombuffer(content.translate(KINDS[:256].tobytes()), np.uint8)
    else:
        codes = np.frombuffer(content.decode().encode("utf-32-le"), np.uint32).copy()
        letters = np.concatenate(([0], np.cumsum(pc.utf8_length(lines).to_numpy())))
        kinds = KINDS[codes]
    doubtful = np.flatnonzero(kinds == DOUBTFUL)
    operators = doubtful[_have_operand(codes, doubtful)]
    written = codes[operators]
    codes[kinds > SIGN] = _SPACE
    codes[operators] = written
    places = np.sort(np.concatenate((np.flatnonzero(kinds == SIGN), operators)))
    wider = np.insert(codes, np.repeat(places, 2) + np.tile([0, 1], len(places)), _SPACE).tobytes()
    ends = offsets + 2 * np.searchsorted(places, letters)
    spaced = wider if content.isascii() else wider.decode("utf-32-le").encode()
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(spaced))


def _have_operand(codes: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which `-` and `*` are signs: a number or a lone letter follows, and none has a space on its right side only."""
    near = np.take(codes, places[:, None] + np.arange(-1, 6), mode="clip")
    near[places == 0, 0] = _END  # of no text before
    balanced = ((near[:, 2] != _SPACE) | (near[:, 0] == _SPACE)) & (near[:, 0] != _ASTERISK)  # `**A** is`
    between = (near[:, 2:6] == _SPACE) | (KINDS[near[:, 2:6]] == BRACKET)
    first = 2 + np.argmin(between, axis=1)
    rows = np.arange(len(places))
    operand, after = near[rows, first], near[rows, first + 1]
    lone = _is_letter(operand) & ~_is_letter(after) & ~_is_digit(after) & (after < 128)
    return balanced & (_is_digit(operand) | lone)


def _is_digit(codes: np.ndarray) -> np.ndarray:
    return (codes >= _ZERO) & (codes <= _NINE)


def _is_letter(codes: np.ndarray) -> np.ndarray:
    return (codes >= _A) & (codes <= _Z)
