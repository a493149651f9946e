"""The trace store: finished traces of one teacher, in append-only parts. What is committed is never redone.

A part is one Parquet file of PART_SCHEMA whose name is the hash of its bytes; it appears under its final
name only when it is whole and on disk. The files alone decide what is done.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_data.errors import TraceStoreError, reason_of
from distill_data.identity import sealed, unsealed
from distill_data.parquet import place
from distill_data.part_file import INDEX_COLUMNS, encode_part, is_part, open_part, read_index
from distill_data.records import PART_SCHEMA, Trace

_DIGEST_LENGTH = 32
_OPEN_PARTS = 4


@dataclass(frozen=True)
class CommittedPart:
    """What a commit wrote."""

    name: str
    rows: int
    completion_tokens: int
    bytes: int


class TraceStore:
    """The parts of one teacher, under `<root>/traces/<teacher_id>/`.

    A build makes the folder when it takes the teacher's lease. The store never does: a root that vanishes while workers
    run (an unmounted disk) is not to be made again where it was mounted.
    """

    def __init__(self, root: str | Path, teacher_id: str) -> None:
        self.teacher_id = teacher_id
        self.folder = Path(root) / "traces" / teacher_id
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    def describe(self, teacher: dict[str, Any]) -> None:
        """Write teacher.json, the readable ingredients of the id, where none can be read.

        Raises:
            TraceStoreError: the folder cannot be written (full, read-only, gone).
        """
        with suppress(TraceStoreError):
            self.description()
            return
        text = json.dumps(sealed(teacher), indent=2, ensure_ascii=False)
        self._place(text.encode(), self.folder / "teacher.json")

    def description(self) -> dict[str, Any]:
        """What teacher.json says.

        Raises:
            TraceStoreError: it is missing (no worker of this teacher ever started here) or damaged.
        """
        target = self.folder / "teacher.json"
        try:
            return unsealed(json.loads(target.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise TraceStoreError(f"{target} is missing: run `distill-data build` so that a worker writes it") from None
        except (OSError, ValueError, AttributeError) as error:
            raise TraceStoreError(
                f"{target} is damaged ({reason_of(error)}): restore it from a backup, or run a build that generates "
                "traces, which writes it again"
            ) from error

    def commit(self, traces: Sequence[Trace]) -> CommittedPart:
        """Write traces as one new part, durably, and return its facts.

        Raises:
            TraceStoreError: the folder cannot be written (full, read-only, gone); nothing was half-written.
        """
        table = traces_to_table(traces)
        name, data = encode_part(table)
        self._place(data, self.folder / name)
        return CommittedPart(name, len(table), int(pc.sum(table["completion_tokens"]).as_py() or 0), data.size)

    def parts(self) -> list[str]:
        """Names of the committed parts, sorted.

        Raises:
            TraceStoreError: the folder cannot be read.
        """
        try:
            return sorted(entry.name for entry in os.scandir(self.folder) if is_part(entry.name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise TraceStoreError(
                f"cannot read {self.folder}: {reason_of(error)}: mount or fix its disk, then run the same command again"
            ) from error

    def keys_of(self, name: str) -> tuple[CommittedPart, list[tuple[str, int]]]:
        """A part's facts and its traces' (prompt_id, sample_index).

        Raises:
            TraceStoreError: the part is damaged.
        """
        file = self.folder / name
        index = read_index(file)
        keys = list(zip(index["prompt_id"].to_pylist(), index["sample_index"].to_pylist(), strict=True))
        tokens = int(pc.sum(index["completion_tokens"]).as_py() or 0)
        return CommittedPart(name, len(index), tokens, file.stat().st_size), keys

    def remove_leftovers(self) -> None:
        """Delete what killed writers left half-written; only while no worker of this teacher runs.

        Raises:
            TraceStoreError: the folder cannot be written.
        """
        for leftover in self.folder.glob(".*.tmp"):
            try:
                leftover.unlink(missing_ok=True)
            except OSError as error:
                raise TraceStoreError(
                    f"cannot delete {leftover}: {reason_of(error)}: let this user write the folder"
                ) from error

    def size(self) -> int:
        """Bytes of all parts."""
        return sum((self.folder / name).stat().st_size for name in self.parts())

    def index(self) -> pa.Table:
        """INDEX_COLUMNS of every committed trace, its `part` and `row`, and `failed_too`; a row for each trace.

        Where a trace is there twice (made again with more room, or by two builds at once), the one without an error
        stays, then one that ended by itself, then the longest, then the one in the part whose name sorts first.
        `failed_too` says that beside it an attempt failed for a reason that another attempt might not meet.
        """
        names = self.parts()
        if not names:
            return _INDEX_SCHEMA.empty_table()
        tables = [read_index(self.folder / name) for name in names]
        rows = [len(table) for table in tables]
        part = pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(names), dtype=np.int32), rows), names)
        row = pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in rows]))
        return _without_duplicates(pa.concat_tables(tables).append_column("part", part).append_column("row", row))

    def read(self, locations: pa.Table, columns: list[str] | None = None) -> pa.Table:
        """The traces at `locations` (columns `part`, `row`), in that order: PART_SCHEMA, or only some columns of it.

        Raises:
            TraceStoreError: a part is missing or its bytes do not match its name.
        """
        parts = locations["part"].combine_chunks()
        rows = locations["row"].to_numpy()
        which = parts.indices.to_numpy()
        pieces, positions = [], []
        for number in np.unique(which):
            wanted = np.flatnonzero(which == number)
            pieces.append(self._part(parts.dictionary[int(number)].as_py()).read(columns).take(rows[wanted]))
            positions.append(wanted)
        if not pieces:
            return PART_SCHEMA.empty_table().select(columns or PART_SCHEMA.names)
        return pa.concat_tables(pieces).take(np.argsort(np.concatenate(positions)))

    def _place(self, data: pa.Buffer | bytes, target: Path) -> None:
        try:
            place(data, target)
        except OSError as error:
            if os.path.isdir(self.folder):
                todo = "free space or fix the folder, then run the same command again; everything committed is kept"
            else:
                todo = "its folder is gone: mount its disk or bring it back, then run the same command again"
            raise TraceStoreError(f"cannot write {target}: {reason_of(error)}: {todo}") from error

    def _part(self, name: str) -> pq.ParquetFile:
        """A whole part, checked against the hash in its name; the last few stay open."""
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        self._open[name] = open_part(self.folder / name)
        if len(self._open) > _OPEN_PARTS:
            self._open.popitem(last=False)
        return self._open[name]


_INDEX_SCHEMA = pa.schema(
    [
        *(PART_SCHEMA.field(name) for name in INDEX_COLUMNS),
        ("part", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int32()),
        ("failed_too", pa.bool_()),
    ]
)


def traces_to_table(traces: Sequence[Trace]) -> pa.Table:
    """Traces as a table of PART_SCHEMA, column by column."""
    tokens = [len(trace.completion_token_ids) for trace in traces]
    logprobs = [trace.soft_labels.sampled_logprobs for trace in traces]
    columns = {
        "prompt_id": [trace.prompt_id for trace in traces],
        "sample_index": [trace.sample_index for trace in traces],
        "content_digest": [content_digest(trace) for trace in traces],
        "completion": [trace.completion for trace in traces],
        "prompt_suffix": [trace.prompt_suffix for trace in traces],
        "finish_reason": [trace.finish_reason for trace in traces],
        "error": [trace.error for trace in traces],
        "error_detail": [trace.error_detail for trace in traces],
        "prompt_tokens": [len(trace.prompt_token_ids) for trace in traces],
        "completion_tokens": tokens,
        "mean_logprob": [float(values.mean()) if len(values) else None for values in logprobs],
        "prompt_token_ids": _lists((trace.prompt_token_ids for trace in traces), pa.int32()),
        "completion_token_ids": _lists((trace.completion_token_ids for trace in traces), pa.int32()),
        "sampled_logprobs": _lists(logprobs, pa.float32()),
        "support_counts": _lists((trace.soft_labels.support_counts for trace in traces), pa.uint8()),
        "support_ids": _lists((trace.soft_labels.support_ids for trace in traces), pa.int32()),
        "support_logprobs": _lists((trace.soft_labels.support_logprobs for trace in traces), pa.float16()),
    }
    return pa.table(columns, schema=PART_SCHEMA)


def content_digest(trace: Trace) -> str:
    """Hash (32 hex digits) of what a trace says: ids, distributions and outcome, not where it is stored."""
    state = hashlib.sha256()
    labels = trace.soft_labels
    for array in (
        trace.prompt_token_ids,
        trace.completion_token_ids,
        labels.sampled_logprobs,
        labels.support_counts,
        labels.support_ids,
        labels.support_logprobs,
    ):
        state.update(len(array).to_bytes(8, "little"))
        state.update(np.ascontiguousarray(array).data)
    state.update(json.dumps([trace.finish_reason, trace.error, trace.completion]).encode())
    return state.hexdigest()[:_DIGEST_LENGTH]


def _lists(arrays: Iterable[np.ndarray], kind: pa.DataType) -> pa.ListArray:
    """A list column from one numpy array per row, without a Python object per element."""
    rows = list(arrays)
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int32)
    values = np.concatenate(rows).astype(kind.to_pandas_dtype(), copy=False) if rows else []
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=kind))


_PREFERENCE = [
    ("failed", "ascending"),
    ("cut", "ascending"),
    ("completion_tokens", "descending"),
    ("finish_reason", "ascending"),  # at equal length `context` before `length`: more max_tokens would not help
    ("part_number", "ascending"),
    ("row", "ascending"),
]


def _without_duplicates(index: pa.Table) -> pa.Table:
    samples = index["sample_index"].to_numpy()
    ids = index["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    key = ids.astype(np.int64) * (int(samples.max(initial=0)) + 1) + samples
    ordered = np.sort(key)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
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
