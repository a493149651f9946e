"""Planning: which traces are wanted, which the store already holds, and the missing ones cut into shards. Pure.

Resume and incremental build are this one anti-join: killing and re-running, adding prompts, raising `samples`.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Plan:
    """What is there and what is missing, in planned order: prompt by prompt, sample by sample.

    `finished`: prompt_row (row in the prompt set), sample_index, part, row, content_digest, error,
    completion_tokens. `missing`: prompt_row, sample_index.
    """

    finished: pa.Table
    missing: pa.Table

    @property
    def wanted(self) -> int:
        """Prompts times samples."""
        return len(self.finished) + len(self.missing)


@dataclass(frozen=True)
class Shard:
    """A deterministic slice of the missing work: (prompt row, sample index) pairs."""

    number: int
    prompt_rows: np.ndarray  # int32 [N]
    sample_indexes: np.ndarray  # int32 [N]

    def __len__(self) -> int:
        return len(self.prompt_rows)


def make_plan(prompt_ids: pa.ChunkedArray, samples: int, index: pa.Table, max_model_len: int | None) -> Plan:
    """Anti-join prompts x samples with what the store's index holds.

    A trace that the context refused (`prompt_too_long`) or cut is missing again once `max_model_len` is larger.
    """
    prompt_row = pc.index_in(index["prompt_id"], value_set=prompt_ids.combine_chunks())
    usable = pc.and_(pc.is_valid(prompt_row), pc.less(index["sample_index"], samples))
    if max_model_len is not None:
        limited = pc.or_(
            pc.fill_null(pc.equal(index["error"], "prompt_too_long"), False),
            pc.fill_null(pc.equal(index["finish_reason"], "context"), False),
        )
        fits_now = pc.less(pc.add(index["prompt_tokens"], index["completion_tokens"]), max_model_len)
        usable = pc.and_(usable, pc.invert(pc.and_(limited, fits_now)))
    known = index.append_column("prompt_row", prompt_row).filter(usable)
    place = known["prompt_row"].to_numpy().astype(np.int64) * samples + known["sample_index"].to_numpy()
    slots = np.full(len(prompt_ids) * samples, -1, np.int64)
    slots[place] = np.arange(len(known))
    columns = ["prompt_row", "sample_index", "part", "row", "content_digest", "error", "completion_tokens"]
    return Plan(known.take(slots[slots >= 0]).select(columns), _pairs(np.flatnonzero(slots < 0), samples))


def cut_shards(missing: pa.Table, shard_size: int) -> list[Shard]:
    """Cut the missing work into shards of at most `shard_size` traces, in planned order."""
    rows, samples = missing["prompt_row"].to_numpy(), missing["sample_index"].to_numpy()
    starts = range(0, len(missing), shard_size)
    return [
        Shard(number, rows[start : start + shard_size], samples[start : start + shard_size])
        for number, start in enumerate(starts)
    ]


def _pairs(slots: np.ndarray, samples: int) -> pa.Table:
    rows, indexes = np.divmod(slots, samples)
    return pa.table({"prompt_row": rows.astype(np.int32), "sample_index": indexes.astype(np.int32)})
