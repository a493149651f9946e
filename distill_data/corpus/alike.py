"""Traces of one prompt that are nearly the same, among those that are kept so far."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.corpus.assembly import Assembly
from distill_data.filters.alike_samples import alike_samples

_TOKENS_AT_ONCE = 2_000_000  # of text: some 10 MB


def drop_alike(job: Assembly, decisions: pa.Table) -> pa.Table:
    """The decisions, in which a trace like an earlier kept one of its prompt is a `near_duplicate_sample`."""
    kept = np.flatnonzero(pc.is_null(decisions["drop_reason"]).to_numpy())
    rows = decisions.select(["prompt_row", "sample_index", "part", "row", "completion_tokens"]).take(pa.array(kept))
    section, like = job.config.deduplicate, np.arange(len(decisions))
    for piece in _whole_prompts(rows):
        some = rows.slice(piece.start, piece.stop - piece.start)
        texts = job.store.read(some.select(["part", "row"]), ["completion"])["completion"].combine_chunks()
        first = alike_samples(texts, some["prompt_row"].to_numpy(), section.sample_similarity, section.ngram)
        like[kept[piece]] = kept[piece][first]
    dropped = pa.array(like != np.arange(len(decisions)))
    samples = decisions["sample_index"].take(pa.array(like)).cast(pa.string()).combine_chunks()
    told = {
        "drop_reason": pa.scalar("near_duplicate_sample"),
        "drop_detail": pc.binary_join_element_wise("nearly the same as sample ", samples, ""),
    }
    for name, values in told.items():
        column = pc.if_else(dropped, values, decisions[name])
        decisions = decisions.set_column(decisions.schema.get_field_index(name), name, column)
    return decisions


def _whole_prompts(rows: pa.Table) -> Iterator[slice]:
    """Runs of rows in bounded memory that tear no prompt's apart; prompts stand together."""
    starts = np.flatnonzero(np.diff(rows["prompt_row"].to_numpy(), prepend=-1))
    ends = np.append(starts[1:], len(rows))
    tokens = np.concatenate(([0], np.cumsum(rows["completion_tokens"].to_numpy(), dtype=np.int64)))
    at = 0
    while at < len(starts):
        full = int(np.searchsorted(tokens[ends], tokens[starts[at]] + _TOKENS_AT_ONCE, side="right"))
        until = max(full, at + 1)
        yield slice(int(starts[at]), int(ends[until - 1]))
        at = until
