"""Where two tokenizers cut one text at the same place: there both models say what comes after the same words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_INSIDE = -1  # a token that starts inside a character
_PART = "\ufffd"  # what tokenizers decode a part of a character to


def token_starts(tokenizer: Any, ids: Sequence[int], text: str) -> np.ndarray:
    """The character of `text` that every token starts at: int64 [T], -1 where that is inside a character.

    Args:
        tokenizer: whose ids these are.
        ids: T tokens that decode to `text`.
        text: what they say, special tokens included.
    """
    pieces = tokenizer.batch_decode([[token] for token in ids], skip_special_tokens=False) if len(ids) else []
    if "".join(pieces) == text and not any(_PART in piece for piece in pieces):
        return np.cumsum([0, *map(len, pieces[:-1])], dtype=np.int64)[: len(ids)]
    return _starts_in_order(tokenizer, list(ids), text)


def _starts_in_order(tokenizer: Any, ids: list[int], text: str) -> np.ndarray:
    """The same for tokens that say something else alone: parts of characters, words whose space is dropped at first.

    Each is decoded behind the ones before it, from the last whole word on, as vLLM and TGI stream text.
    """
    starts = np.full(len(ids), _INSIDE, np.int64)
    context, begin, at = 0, 0, 0  # tokens that are decoded along, the first that is not said yet, and its character
    for end in range(1, len(ids) + 1):
        said = tokenizer.decode(ids[context:begin], skip_special_tokens=False)
        piece = tokenizer.decode(ids[context:end], skip_special_tokens=False)[len(said) :]
        if text.startswith(piece, at) and (_PART not in piece or end == len(ids)):
            starts[begin] = at
            context, begin, at = begin, end, at + len(piece)
    return starts


def same_starts(own: np.ndarray, teachers: np.ndarray) -> np.ndarray:
    """For every student token the teacher's token that starts at the same character: int64 [T], -1 for none.

    Args:
        own: `token_starts` of the student's tokens.
        teachers: those of the teacher's. Of several that start at one character, all but the last say nothing.
    """
    if not len(teachers):
        return np.full(len(own), -1, np.int64)
    order = np.argsort(teachers, kind="stable")
    place = np.searchsorted(teachers[order], own, side="right") - 1
    found = order[np.maximum(place, 0)]
    return np.where((place >= 0) & (own >= 0) & (teachers[found] == own), found, -1)
