"""Mixed languages, told by their scripts."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.flat_text import FlatText, Traces, where_said

# Blocks of letters by script, as first and last code point (Unicode 16, Blocks.txt). Signs, digits and emoji are in no
# script. Japanese writes Han and kana together, so they count as one.
SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "Latin": (
        (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x2AF), (0x1E00, 0x1EFF), (0xFF21, 0xFF3A),
        (0xFF41, 0xFF5A),
    ),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrillic": ((0x400, 0x52F),),
    "Armenian": ((0x530, 0x58F),),
    "Hebrew": ((0x590, 0x5FF),),
    "Arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
    "Devanagari": ((0x900, 0x97F),),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Oriya": ((0xB00, 0xB7F),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Sinhala": ((0xD80, 0xDFF),),
    "Thai": ((0xE00, 0xE7F),),
    "Lao": ((0xE80, 0xEFF),),
    "Tibetan": ((0xF00, 0xFFF),),
    "Myanmar": ((0x1000, 0x109F),),
    "Georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF)),
    "Ethiopic": ((0x1200, 0x139F),),
    "Khmer": ((0x1780, 0x17FF),),
    "Hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)),
    "Han and kana": (
        (0x3041, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
        (0xFF66, 0xFF9D), (0x20000, 0x323AF),
    ),
}  # fmt: skip
_HAN = 1 + list(SCRIPTS).index("Han and kana")
_NO_PROSE = (
    r"(?s:```.*?(?:```|$))|(?s:\$\$.*?\$\$)|(?s:\\\[.*?\\\])|(?s:\\\(.*?\\\))|\$[^$\n]*\$|`[^`\n]*`"
    r"|\\(?:begin|end)\{\w+\*?\}|\\[A-Za-z]+|</?\w+>|https?://[!-~]+"
)
_FIRST_OTHER_LEAD = 0xCD  # a UTF-8 lead byte below this begins Latin letters or signs
_THREE_BYTES_LEAD = 0xE0
_SIGNS_LEAD = 0xE2  # U+2000 to U+2FFF: dashes, quotes, arrows, operators


def _script_table() -> np.ndarray:
    table = np.zeros(0x110000, np.uint8)
    for number, blocks in enumerate(SCRIPTS.values(), start=1):
        for first, last in blocks:
            table[first : last + 1] = number
    return table


_SCRIPT_OF = _script_table()


def other_script_share(traces: Traces) -> np.ndarray:
    """Share of `completion`'s words that are not in its most frequent script; 0 where there are none.

    A word is a run of two or more letters of one script, or one character of Han or kana: counting letters would make
    one English term as much as a Chinese sentence. Formulas, code, tags and links are left out, and so are single
    letters, which are mostly variables. DeepSeek-R1 dropped thoughts in mixed languages (DeepSeek-AI, 2025, 2.3.3).

    A completion that has nothing but Latin and single letters has nothing outside: only others are looked at closely.
    """
    from distill_data.filters.text_loops import rows_beyond_latin

    text = traces.completion
    leads = (_FIRST_OTHER_LEAD, _SIGNS_LEAD, _THREE_BYTES_LEAD)
    rows = np.flatnonzero(rows_beyond_latin(text.bytes, text.offsets, *leads))
    shares = np.zeros(len(text.valid))
    if len(rows):
        shares[rows] = _shares(pc.replace_substring_regex(traces["completion"].take(pa.array(rows)), _NO_PROSE, " "))
    return where_said(text.valid, shares)


def _shares(texts: pa.ChunkedArray) -> np.ndarray:
    """Per text, the share of words outside its most frequent script: float64."""
    from distill_data.filters.text_loops import script_words

    text = FlatText.of(texts)
    counts = script_words(text.bytes, text.offsets, _SCRIPT_OF, len(SCRIPTS) + 1, _HAN)
    total = counts.sum(axis=1)
    return 1.0 - counts.max(axis=1) / np.maximum(total, 1) - (total == 0)
