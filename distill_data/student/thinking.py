"""Thinking that a student does not learn: read as if it were prompt (`mask`), or left out (`drop`)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from distill_data.errors import StudentError

How = Literal["mask", "drop"]
_TAIL = 64  # tokens of a prompt that hold an opening tag and white space behind it


def closing_token(tokenizer: Any, close_tag: str) -> int:
    """The id of the token that closes a thought.

    Raises:
        StudentError: it is not one token of this tokenizer, so that no token is where the answer begins.
    """
    ids = tokenizer(close_tag, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise StudentError(
            f"student.train.thinking needs a teacher that closes its thoughts with one token, and "
            f"teacher.reasoning.close_tag {close_tag!r} is {len(ids)} of its tokens: set thinking: train"
        )
    return ids[0]


def behind_closed_thought(answer: str, close_tag: str) -> str:
    """What a model says that answers at once where its prompt ended in an open thought."""
    return f"{close_tag}\n\n{answer}" if close_tag else answer


def opened_by_prompt(batch: pa.RecordBatch, tokenizer: Any, open_tag: str) -> np.ndarray:
    """Whether the prompt of a trace ends in `open_tag`, as some chat templates write it: bool [rows]."""
    if not open_tag:
        return np.zeros(len(batch), bool)
    ids, offsets = _values(batch.column("prompt_token_ids"))
    ends = [ids[max(start, end - _TAIL) : end].tolist() for start, end in pairwise(offsets.tolist())]
    texts = tokenizer.batch_decode(ends, skip_special_tokens=False) if ends else []
    return np.array([text.rstrip().endswith(open_tag) for text in texts], bool)


def cut_thinking(batch: pa.RecordBatch, closing: int, how: How, opened: np.ndarray | None = None) -> pa.RecordBatch:
    """The traces of a batch without what is up to and including the first `closing` token of their completion.

    Args:
        batch: SOFT_LABELS_SCHEMA. A trace without that token stays as it is, and one that ends with it keeps its last
            token.
        closing: token id.
        how: `mask` puts the thinking behind the prompt, where it has no soft labels; `drop` leaves it out: what is kept
            are then distributions of a teacher that had thought.
        opened: bool [rows], whose prompts end in an open thought. `drop` leaves these their closing token, with its
            soft labels: a student that goes on without it would never have answered.
    """
    ids, tokens = _values(batch.column("completion_token_ids"))
    kept_closing = opened if how == "drop" and opened is not None else np.zeros(len(batch), bool)
    thought = _thought(ids, tokens, closing, kept_closing)
    place = np.arange(len(ids)) - np.repeat(tokens[:-1], np.diff(tokens))
    kept = place >= np.repeat(thought, np.diff(tokens))
    counts = _values(batch.column("support_counts"))[0]
    columns = {name: batch.column(name) for name in batch.schema.names}
    for name in ("completion_token_ids", "sampled_logprobs", "support_counts"):
        columns[name] = _filtered(columns[name], kept)
    for name in ("support_ids", "support_logprobs"):
        columns[name] = _filtered(columns[name], np.repeat(kept, counts))
    if how == "mask":
        columns["prompt_token_ids"] = _joined(columns["prompt_token_ids"], ids[~kept], thought)
    return pa.record_batch(list(columns.values()), schema=batch.schema)


def _thought(ids: np.ndarray, offsets: np.ndarray, closing: int, kept_closing: np.ndarray) -> np.ndarray:
    """Tokens up to the first `closing` one, and with it unless it is kept, but never all: int64 [rows]."""
    lengths = np.diff(offsets)
    places = np.flatnonzero(ids == closing)
    rows, first = np.unique(np.searchsorted(offsets, places, side="right") - 1, return_index=True)
    thought = np.zeros(len(lengths), np.int64)
    thought[rows] = places[first] - offsets[rows] + ~kept_closing[rows]
    return np.minimum(thought, np.maximum(lengths - 1, 0))


def _values(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Values of a list column and where each row starts and ends in them, from 0."""
    offsets = column.offsets.to_numpy()
    return column.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]


def _filtered(column: pa.Array, kept: np.ndarray) -> pa.Array:
    values, offsets = _values(column)
    running = np.concatenate(([0], np.cumsum(kept)))
    return _lists(column.type, values[kept], running[offsets])


def _joined(column: pa.Array, behind: np.ndarray, lengths: np.ndarray) -> pa.Array:
    """Every row with `lengths` more values from `behind`, which holds them row after row."""
    values, offsets = _values(column)
    own = np.diff(offsets)
    ends = np.concatenate(([0], np.cumsum(own + lengths)))
    joined = np.empty(ends[-1], values.dtype)
    added = np.repeat(np.tile([False, True], len(own)), np.stack([own, lengths], axis=1).ravel())
    joined[~added], joined[added] = values, behind
    return _lists(column.type, joined, ends)


def _lists(kind: pa.DataType, values: np.ndarray, offsets: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values), type=kind)
