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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_data.errors import TraceStoreError
from distill_data.parquet import encode, place
from distill_data.records import PART_SCHEMA, Trace

INDEX_COLUMNS = [
    "prompt_id", "sample_index", "content_digest", "finish_reason", "error", "prompt_tokens", "completion_tokens",
]  # fmt: skip
_HASH_LENGTH = 32
_OPEN_PARTS = 4


@dataclass(frozen=True)
class CommittedPart:
    """What a commit wrote."""

    name: str
    rows: int
    completion_tokens: int
    bytes: int


class TraceStore:
    """The parts of one teacher, under `<root>/traces/<teacher_id>/`."""

    def __init__(self, root: str | Path, teacher_id: str) -> None:
        self.teacher_id = teacher_id
        self.folder = Path(root) / "traces" / teacher_id
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    def describe(self, teacher: dict[str, Any]) -> None:
        """Write teacher.json, the readable ingredients of the id, if it is not there yet.

        Raises:
            TraceStoreError: the folder cannot be written.
        """
        target = self.folder / "teacher.json"
        if not target.exists():
            self._place(json.dumps(teacher, indent=2, ensure_ascii=False).encode(), target)

    def description(self) -> dict[str, Any]:
        """What teacher.json says.

        Raises:
            TraceStoreError: it is missing: no worker of this teacher ever started here.
        """
        target = self.folder / "teacher.json"
        if not target.exists():
            raise TraceStoreError(f"{target} is missing: run `distill-data build` so that a worker writes it")
        return json.loads(target.read_text(encoding="utf-8"))

    def commit(self, traces: Sequence[Trace]) -> CommittedPart:
        """Write traces as one new part, durably, and return its facts.

        Raises:
            TraceStoreError: the folder cannot be written (full, read-only, gone); nothing was half-written.
        """
        table = traces_to_table(traces)
        data = encode(table)
        name = f"part-{hashlib.sha256(data).hexdigest()[:_HASH_LENGTH]}.parquet"
        self._place(data, self.folder / name)
        return CommittedPart(name, len(table), int(pc.sum(table["completion_tokens"]).as_py() or 0), data.size)

    def parts(self) -> list[str]:
        """Names of the committed parts, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.folder) if _is_part(entry.name))

    def size(self) -> int:
        """Bytes of all parts."""
        return sum((self.folder / name).stat().st_size for name in self.parts())

    def index(self) -> pa.Table:
        """INDEX_COLUMNS of every committed trace, with its `part` and `row`; one row per (prompt_id, sample_index).

        Where a trace is there twice (made again with more context, or by two builds at once), the one without an
        error stays, then the one that the context did not cut, then the one in the part whose name sorts first.
        """
        tables = [self._index_part(name) for name in self.parts()]
        if not tables:
            return _INDEX_SCHEMA.empty_table()
        return _without_duplicates(pa.concat_tables(tables))

    def read(self, locations: pa.Table, columns: list[str] | None = None) -> pa.Table:
        """The traces at `locations` (columns `part`, `row`), in that order: PART_SCHEMA, or only some columns of it.

        Raises:
            TraceStoreError: a part is missing or its bytes do not match its name.
        """
        parts = locations["part"].to_numpy(zero_copy_only=False)
        rows = locations["row"].to_numpy()
        names, which = np.unique(parts, return_inverse=True)
        pieces, positions = [], []
        for number, name in enumerate(names):
            wanted = np.flatnonzero(which == number)
            pieces.append(self._part(name).read(columns).take(rows[wanted]))
            positions.append(wanted)
        if not pieces:
            return PART_SCHEMA.empty_table().select(columns or PART_SCHEMA.names)
        return pa.concat_tables(pieces).take(np.argsort(np.concatenate(positions)))

    def _place(self, data: pa.Buffer | bytes, target: Path) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TraceStoreError(
                f"cannot create {self.folder}: {error.strerror}: set root: to a folder that can be written"
            ) from error
        try:
            place(data, target)
        except OSError as error:
            raise TraceStoreError(
                f"cannot write {target}: {error.strerror}: free space or fix the folder, then run "
                "the same command again; everything committed before is kept"
            ) from error

    def _index_part(self, name: str) -> pa.Table:
        try:
            table = pq.read_table(self.folder / name, columns=INDEX_COLUMNS, memory_map=True)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(name, str(error)) from error
        part = pa.array([name]).take(pa.array(np.zeros(len(table), np.int8)))
        return table.append_column("part", part).append_column("row", pa.array(np.arange(len(table))))

    def _part(self, name: str) -> pq.ParquetFile:
        """A whole part, checked against the hash in its name; the last few stay open."""
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise self._damaged(name, str(error.strerror)) from error
        if hashlib.sha256(data).hexdigest()[:_HASH_LENGTH] != name[len("part-") : -len(".parquet")]:
            raise self._damaged(name, "its bytes do not match the hash in its name")
        self._open[name] = pq.ParquetFile(pa.BufferReader(data))
        if len(self._open) > _OPEN_PARTS:
            self._open.popitem(last=False)
        return self._open[name]

    def _damaged(self, name: str, why: str) -> TraceStoreError:
        return TraceStoreError(
            f"part {self.folder / name} is damaged ({why}): restore it from a backup, or delete it and run "
            "`distill-data build` to generate its traces again"
        )


_INDEX_SCHEMA = pa.schema([PART_SCHEMA.field(name) for name in INDEX_COLUMNS]).append(
    pa.field("part", pa.string())
).append(pa.field("row", pa.int64()))  # fmt: skip


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
    return state.hexdigest()[:_HASH_LENGTH]


def _lists(arrays: Iterable[np.ndarray], kind: pa.DataType) -> pa.ListArray:
    """A list column from one numpy array per row, without a Python object per element."""
    rows = list(arrays)
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int32)
    values = np.concatenate(rows).astype(kind.to_pandas_dtype(), copy=False) if rows else []
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=kind))


def _without_duplicates(index: pa.Table) -> pa.Table:
    key = pc.binary_join_element_wise(index["prompt_id"], pc.cast(index["sample_index"], pa.string()), "-")
    if pc.count_distinct(key).as_py() == len(index):
        return index
    ordered = index.append_column("key", key).append_column("failed", pc.is_valid(index["error"]))
    ordered = ordered.append_column("cut", pc.equal(index["finish_reason"], "context"))
    ordered = ordered.sort_by([(column, "ascending") for column in ("failed", "cut", "part", "row")])
    ordered = ordered.append_column("position", pa.array(np.arange(len(ordered))))
    first = ordered.group_by("key", use_threads=False).aggregate([("position", "min")])
    return ordered.take(first["position_min"]).select(index.column_names)


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")
