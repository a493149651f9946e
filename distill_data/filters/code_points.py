"""What every code point is to a tokeniser."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TYPOGRAPHIC = {"\N{MINUS SIGN}": "-", "\N{MULTIPLICATION SIGN}": "*"}
_NO_TOKEN = r"[^ \pL\pM\pN\pS%/*(\[{-]"
_MARKUP = "$`"  # they mark mathematics and code up: they are no signs
PUNCTUATION = rf"{_NO_TOKEN}+|[{_MARKUP}]"
WORD, SIGN, DOUBTFUL, BRACKET, NO_TOKEN, MARKUP, BLANK = range(7)
"""A run of NO_TOKEN is one space, MARKUP is one each; what DOUBTFUL is depends on its neighbours."""
KIND_BITS = 3
_ALONE = [
    (0x0E00, 0x0F00),  # Thai, Lao
    (0x1000, 0x10A0),  # Burmese
    (0x1780, 0x1800),  # Khmer
    (0x2190, 0x2300),  # arrows, mathematical operators
    (0x3005, 0x3008),  # ideographic iteration mark, closing mark and zero
    (0x3040, 0x3100),  # Hiragana, Katakana
    (0x31F0, 0x3200),
    (0x3400, 0x4DC0),  # Chinese characters
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x40000),
]  # code points that are a token each: from, up to
KINDS = np.full(0x110000, WORD, np.uint8)
KINDS[[ord(sign) for sign in "+<=>|~^%/\N{DIVISION SIGN}\N{FRACTION SLASH}"]] = SIGN
KINDS[list(b"-*")] = DOUBTFUL
KINDS[list(b"([{")] = BRACKET  # until it is known what stands behind it
for _start, _stop in _ALONE:
    KINDS[_start:_stop] = SIGN

_MAY_COMPOSE = r"[\pM]|[^\pL\pM\pN\pP\pS\pZ\pC]"  # marks, and what RE2 does not know
_JAMO = (0x1100, 0x1200)  # they compose
_KNOWN = (0x10000, 0x1F000, 0x1FC00, 0x20000, 0x30000)  # beyond the first plane, emoji and Chinese characters


@cache
def code_points() -> tuple[np.ndarray, np.ndarray]:
    """Which code points are never changed but to a lower letter (bool [0x110000]), and what each is (int32 [0x110000]).

    The former have no other form (NFKC), nor has their lower letter, and they do not compose with neighbours: a text
    of them is normalised as it stands. The latter is the lower letter or plain sign that is written, and in the last
    three bits its kind, punctuation as RE2 says.
    """
    codes = np.setdiff1d(np.arange(0x110000, dtype=np.uint32), np.arange(0xD800, 0xE000))
    lower = np.arange(0x110000, dtype=np.uint32)
    lower[codes] = _codes(pc.utf8_lower(_text(codes)))
    alone = np.zeros(0x110000, bool)
    alone[codes] = _stand_alone(codes)
    for typographic, sign in TYPOGRAPHIC.items():
        lower[ord(typographic)] = ord(sign)
    kinds = KINDS.copy()
    kinds[codes[_codes(pc.replace_substring_regex(_text(codes), _NO_TOKEN, " ")) == ord(" ")]] = NO_TOKEN
    kinds[list(_MARKUP.encode())] = MARKUP
    kinds[ord(" ")] = BLANK
    return alone & alone[lower], (lower << KIND_BITS | kinds[lower]).astype(np.int32)


def _stand_alone(codes: np.ndarray) -> np.ndarray:
    """Which code points have no other form and take no part in composing one (bool)."""
    raw = codes.tobytes().decode("utf-32-le").encode()
    starts = np.flatnonzero((np.frombuffer(raw, np.uint8) & 0xC0) != 0x80)
    offsets = pa.py_buffer(np.append(starts, len(raw)).astype(np.int32))
    signs = pa.StringArray.from_buffers(len(codes), offsets, pa.py_buffer(raw))
    same = pc.equal(pc.utf8_normalize(signs, form="NFKC"), signs).to_numpy(zero_copy_only=False)
    composing = _codes(pc.replace_substring_regex(_text(codes), _MAY_COMPOSE, " ")) == ord(" ")
    composing |= (codes >= _JAMO[0]) & (codes < _JAMO[1])
    plane, emoji, after, han, end = _KNOWN
    known = (codes < plane) | ((codes >= emoji) & (codes < after)) | ((codes >= han) & (codes < end))
    return same & (~composing | (codes == ord(" "))) & known


def _text(codes: np.ndarray) -> pa.Array:
    return pa.array([codes.tobytes().decode("utf-32-le")])


def _codes(text: pa.Array) -> np.ndarray:
    return np.frombuffer(text[0].as_py().encode("utf-32-le"), np.uint32)
