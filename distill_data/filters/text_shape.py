"""How long paragraphs are, how often a text says the same again, and how far it can be compressed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa

from distill_data.filters.flat_text import Traces, where_said

NGRAM_WORDS = 10


def longest_paragraph(traces: Traces) -> np.ndarray:
    """Characters of the longest paragraph of `completion`.

    A blank line parts paragraphs: two line breaks with at most one character of white space between them. DeepSeek-R1
    dropped long paragraphs (DeepSeek-AI, 2025, 2.3.3).
    """
    from distill_data.filters.text_loops import paragraph_lengths

    text = traces.completion
    return where_said(text.valid, paragraph_lengths(text.bytes, text.offsets))


def repetition(traces: Traces) -> np.ndarray:
    """Share of `completion`'s runs of 10 words that stood in it before; NaN where it has fewer than 10 words.

    Gopher's duplicate n-grams (Rae et al., 2021, table A1) count characters for 5 to 10 words; counting runs of the
    longest kind finds loops of any period and leaves phrases that come again. A word ends with the white space behind
    it; from U+3000 on every character begins one. Words are told apart by 64-bit hashes.
    """
    from distill_data.filters.text_loops import repeated_runs

    text = traces.completion
    runs, again = repeated_runs(text.bytes, text.offsets, NGRAM_WORDS)
    return where_said(text.valid & (runs > 0), again / np.maximum(runs, 1))


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
