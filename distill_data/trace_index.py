"""The index of a trace store: one row a trace, also where a trace was made more than once."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.part_file import INDEX_COLUMNS
from distill_data.records import PART_SCHEMA

INDEX_SCHEMA = pa.schema(
    [
        *(PART_SCHEMA.field(name) for name in INDEX_COLUMNS),
        ("part", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int32()),
        ("failed_too", pa.bool_()),
    ]
)

_PREFERENCE = [
    ("failed", "ascending"),
    ("cut", "ascending"),
    ("completion_tokens", "descending"),
    ("finish_reason", "ascending"),  # at equal length `context` before `length`: more max_tokens would not help
    ("part_number", "ascending"),
    ("row", "ascending"),
]


def without_duplicates(index: pa.Table) -> pa.Table:
    """One row a trace, the best that there is, with `failed_too`; see `TraceStore.index`."""
    samples = index["sample_index"].to_numpy()
    ids = index["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    key = ids.astype(np.int64) * (int(samples.max(initial=0)) + 1) + samples
    ordered = np.sort(key)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    pa.default_memory_pool().release_unused()  # what encoding the ids took would stay with the process
    alone = index.append_column("failed_too", pa.repeat(pa.scalar(False), len(index)))
    if not len(twice):
        return alone
    several = pa.array(np.isin(key, twice))
    chosen = _best_of_each(index.append_column("key", pa.array(key)).filter(several))
    return pa.concat_tables([alone.filter(pc.invert(several)), chosen])


def _best_of_each(several: pa.Table) -> pa.Table:
    """One row of each `key`, and `failed_too`; see `TraceStore.index`."""
    ordered = several.append_column("failed", pc.is_valid(several["error"]))
    ordered = ordered.append_column("cut", pc.not_equal(several["finish_reason"], "stop"))
    ordered = ordered.append_column("part_number", several["part"].combine_chunks().indices)  # their names are sorted
    ordered = ordered.take(pc.sort_indices(ordered, sort_keys=_PREFERENCE))
    ordered = ordered.append_column("position", pa.array(np.arange(len(ordered))))
    ordered = ordered.append_column("failed_too", _failed_in_passing(ordered["error"]))
    first = ordered.group_by("key", use_threads=False).aggregate([("position", "min"), ("failed_too", "any")])
    chosen = ordered.take(first["position_min"]).drop_columns(
        ["key", "failed", "cut", "part_number", "position", "failed_too"]
    )
    return chosen.append_column("failed_too", pc.and_not(first["failed_too_any"], _failed_in_passing(chosen["error"])))


def _failed_in_passing(error: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether a row failed for a reason that is not its prompt's length."""
    return pc.fill_null(pc.not_equal(error, "prompt_too_long"), False)
