"""Planning: which traces are wanted, which the store already holds, and the missing ones cut into shards. Pure.

Resume and incremental build are this one anti-join: killing and re-running, adding prompts, raising `samples`, making
again what the context, `max_tokens` or a failure ended.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config

PASSING_ERRORS = ["request_failed", "engine_died", "nonfinite_logprobs"]  # those another attempt may not meet
_FINISHED_COLUMNS = ["prompt_row", "sample_index", "part", "row", "content_digest", "error", "completion_tokens"]


@dataclass(frozen=True)
class Plan:
    """What is there and what is missing, in planned order: prompt by prompt, sample by sample.

    `finished`: prompt_row (row in the prompt set), sample_index, part, row, content_digest, error,
    completion_tokens. `missing`: prompt_row, sample_index, and max_tokens, null for as sampled.
    """

    finished: pa.Table
    missing: pa.Table

    @property
    def wanted(self) -> int:
        """Every prompt as often as it is sampled."""
        return len(self.finished) + len(self.missing)


@dataclass(frozen=True)
class Shard:
    """A slice of the missing work: N traces to generate or, with a cause, to record as dead letters."""

    traces: np.ndarray  # int64 [N]: their rows in `Plan.missing`
    prompt_rows: np.ndarray  # int32 [N]
    sample_indexes: np.ndarray  # int32 [N]
    max_tokens: np.ndarray  # int32 [N]: 0 is as sampled
    cause: str | None = None

    def __len__(self) -> int:
        return len(self.traces)


@dataclass(frozen=True)
class Retries:
    """Which finished traces are made again, because there is more room or it is asked for."""

    max_model_len: int | None  # None: the model's own, which no trace outgrew
    max_tokens: int | None = None  # of `retry_truncated`
    failed: bool = False  # those that ended in one of PASSING_ERRORS
    sampled_max_tokens: np.ndarray | None = None  # int [prompts]: what ends a trace as sampled; None: nothing does


def sampled_as(settings: Config, sources: pa.ChunkedArray, field: Literal["samples", "max_tokens"]) -> np.ndarray:
    """One field of how every prompt is sampled, from the labels of the prompts' sources: int64 [prompts]."""
    labels = pa.array([source.label for source in settings.prompts])
    values = np.array([getattr(settings.sampling_of(source), field) for source in settings.prompts], np.int64)
    return values[pc.index_in(sources, value_set=labels).to_numpy()]


def make_plan(prompt_ids: pa.ChunkedArray, samples: np.ndarray, index: pa.Table, retries: Retries) -> Plan:
    """Anti-join every prompt, as often as `samples` (int [prompts]) says, with what the store's index holds.

    A trace that is there is missing again where `_made_again` says so.
    """
    offsets = np.concatenate(([0], np.cumsum(samples, dtype=np.int64)))
    rows = pc.fill_null(pc.index_in(index["prompt_id"], value_set=prompt_ids.combine_chunks()), -1)
    index = index.drop_columns(["prompt_id"]).append_column("prompt_row", rows)
    # Row -1 is wanted 0 times.
    wanted = np.flatnonzero(index["sample_index"].to_numpy() < np.append(samples, 0)[rows.to_numpy()])
    known = index.drop_columns(["content_digest", "part", "row"]).take(wanted)  # without what takes most memory
    place = offsets[known["prompt_row"].to_numpy()] + known["sample_index"].to_numpy()
    again, with_more_room = _made_again(known, retries)
    slots = np.full(offsets[-1], -1, np.int64)
    slots[place[~again]] = wanted[~again]
    room = np.zeros(offsets[-1], np.int32)
    room[place[with_more_room]] = retries.max_tokens or 0
    finished = index.select(_FINISHED_COLUMNS).take(slots[slots >= 0])
    pa.default_memory_pool().release_unused()  # what joining took would stay with the process
    return Plan(finished, _missing(np.flatnonzero(slots < 0), offsets, room))


def shard_of(missing: pa.Table, traces: np.ndarray, cause: str | None = None) -> Shard:
    """The shard of these rows of the missing work."""
    rows = missing.take(traces)
    room = pc.fill_null(rows["max_tokens"], 0).to_numpy()
    return Shard(traces, rows["prompt_row"].to_numpy(), rows["sample_index"].to_numpy(), room, cause)


def _made_again(known: pa.Table, retries: Retries) -> tuple[np.ndarray, np.ndarray]:
    """Which finished traces are missing again, and which of them may grow to `retries.max_tokens`: bool [known].

    - What the context refused (`prompt_too_long`) or cut, once `max_model_len` leaves more room than it took.
    - What `max_tokens` cut, once `retries.max_tokens` is more than it took.
    - What failed, where `retries.failed` asks for it. Until then a trace beside which such an attempt failed stays as
      it is: a build must come to an end.

    A new attempt is never smaller than what is there, or the store would prefer the old one for ever.
    """
    tokens = known["completion_tokens"].to_numpy()
    taken = known["prompt_tokens"].to_numpy() + tokens
    context = np.inf if retries.max_model_len is None else retries.max_model_len
    refused, by_context = _equal(known["error"], "prompt_too_long"), _equal(known["finish_reason"], "context")
    outgrown = (refused | by_context) & (retries.max_model_len is not None) & (tokens < _most_tokens(known, retries))
    truncated = _equal(known["finish_reason"], "length") & (tokens < (retries.max_tokens or 0))
    open_to_it = (taken < context) & (retries.failed | ~known["failed_too"].to_numpy())
    failed = retries.failed & pc.is_in(known["error"], value_set=pa.array(PASSING_ERRORS)).to_numpy()
    again = ((outgrown | truncated) & open_to_it) | failed
    return again, again & (truncated | by_context) & (retries.max_tokens is not None)


def _most_tokens(known: pa.Table, retries: Retries) -> np.ndarray | float:
    """How many completion tokens a new attempt may have."""
    if retries.max_tokens is not None or retries.sampled_max_tokens is None:
        return retries.max_tokens or np.inf
    return retries.sampled_max_tokens[known["prompt_row"].to_numpy()]


def _equal(column: pa.ChunkedArray, value: str) -> np.ndarray:
    return pc.fill_null(pc.equal(column, value), False).to_numpy()


def _missing(slots: np.ndarray, offsets: np.ndarray, room: np.ndarray) -> pa.Table:
    """The wanted traces at `slots`; `offsets` says where each prompt's begin, `room` how far each may grow."""
    rows = np.searchsorted(offsets, slots, side="right") - 1
    return pa.table(
        {
            "prompt_row": rows.astype(np.int32),
            "sample_index": (slots - offsets[rows]).astype(np.int32),
            "max_tokens": pa.array(room[slots], mask=room[slots] == 0),
        }
    )
