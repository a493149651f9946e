"""Rows for the viewer: texts cut at a stated length, and the teacher's alternatives for every shown token.

What comes out is plain data for JSON; nothing in it is markup.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from distill_data.corpus.data_file import RowGroup
from distill_data.page.tokens import labels_of
from distill_data.records import REJECTED_SCHEMA, SoftLabels
from distill_data.soft_labels import support_offsets, tail_mass

Decode = Callable[[np.ndarray], list[str]]
"""Texts of token ids, one a token."""
Row = dict[str, Any]

KEPT_SHOWN = 60
MESSAGES_SHOWN = 24
ALTERNATIVES = 8
_BATCH_ROWS = 256


@dataclass(frozen=True)
class Cuts:
    """How much of a row is shown."""

    tokens: int
    characters: int


CUTS = (Cuts(256, 6000), Cuts(192, 3000), Cuts(128, 1500), Cuts(64, 500), Cuts(32, 120))
"""The first that keeps the page small is used; see `distill_data.page.payload`."""


def rejected_rows(groups: Sequence[RowGroup], chosen: dict[str, list[tuple[int, int]]]) -> list[Row]:
    """The chosen rows of `rejected/`, reason by reason in the order of `chosen`, uncut."""
    wanted = {place: None for places in chosen.values() for place in places}
    found: dict[tuple[int, int], Row] = {}
    for number in sorted({group for group, _ in wanted}):
        start = 0
        for batch in groups[number].batches(REJECTED_SCHEMA.names, _BATCH_ROWS):
            rows = [row for group, row in wanted if group == number and start <= row < start + len(batch)]
            content = batch.take(pa.array([row - start for row in rows], pa.int64())).to_pylist()
            found |= {(number, row): entry for row, entry in zip(rows, content, strict=True)}
            start += len(batch)
    return [found[place] for place in wanted]


def token_rows(ids: Sequence[int], labels: SoftLabels) -> Row:
    """Per shown token: its id and probability, the likeliest alternatives, and the mass of all others.

    `others` is [how many more kept tokens, their mass]; `tail` is the probability of every token that was not kept.
    """
    shown = len(ids)
    offsets = support_offsets(labels.support_counts)[: shown + 1].tolist()
    probabilities = np.exp(labels.support_logprobs[: offsets[-1]].astype(np.float64))
    kept = labels.support_ids[: offsets[-1]].tolist()
    alternatives, others = [], []
    for start, stop in pairwise(offsets):
        last = min(stop, start + ALTERNATIVES)
        pairs = zip(kept[start:last], probabilities[start:last].tolist(), strict=True)
        alternatives.append([value for name, p in pairs for value in (name, _short(p))])
        others.append([stop - last, _short(float(probabilities[last:stop].sum()))])
    return {
        "ids": list(ids),
        "p": [_short(p) for p in np.exp(labels.sampled_logprobs[:shown].astype(np.float64)).tolist()],
        "alternatives": alternatives,
        "others": others,
        "tail": [_short(p) for p in tail_mass(labels)[:shown].tolist()],
        "total": len(labels.support_counts),
    }


def kept_row(traces: pa.RecordBatch, labels: pa.RecordBatch, row: int, split: str, most: int) -> Row:
    """One kept row with at most `most` of its tokens."""
    content: Row = traces.slice(row, 1).to_pylist()[0]
    heavy = labels.slice(row, 1)
    ids = heavy["completion_token_ids"][0].as_py()[:most]
    return {**content, "split": split, "tokens": token_rows(ids, labels_of(heavy))}


def cut_tokens(tokens: Row, most: int) -> Row:
    """The first tokens of `token_rows`."""
    return {name: value[:most] if isinstance(value, list) else value for name, value in tokens.items()}


def shown_row(row: Row, cuts: Cuts, with_tokens: bool) -> Row:
    """A row as the viewer takes it: what was asked apart from what was said, every text cut."""
    said = row["finish_reason"] not in (None, "error")
    messages = row["messages"] or []
    asked = messages[:-1] if said else messages
    tokens = row.get("tokens") if with_tokens else None
    texts = {name: _cut(row[name], cuts) for name in ("thinking", "answer", "reference", "metadata")}
    same = ("trace_id", "prompt_id", "sample_index", "source", "passed", "finish_reason", "prompt_tokens")
    return {
        **{name: row[name] for name in (*same, "completion_tokens")},
        **texts,
        "answer": texts["answer"] if said else None,
        "thinking": texts["thinking"] if said else None,
        "messages": [[message["role"], _cut(message["content"], cuts)] for message in asked[:MESSAGES_SHOWN]],
        "messages_left": max(0, len(asked) - MESSAGES_SHOWN),
        "score": _number(row["score"]),
        "mean_logprob": _number(row["mean_logprob"]),
        "split": row.get("split"),
        "reason": row.get("drop_reason"),
        "detail": _cut(row.get("drop_detail"), cuts),
        "tokens": cut_tokens(tokens, cuts.tokens) if tokens else None,
    }


def _cut(text: str | None, cuts: Cuts) -> Row | None:
    """The start of a text and how many characters are left out."""
    if not text:
        return None
    return {"text": text[: cuts.characters], "left": max(0, len(text) - cuts.characters)}


def _number(value: float | None) -> float | None:
    """JSON has no NaN."""
    return _short(value) if value is not None and math.isfinite(value) else None


def _short(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
