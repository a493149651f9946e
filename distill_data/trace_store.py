"""The trace store: finished traces of one teacher, in append-only parts. What is committed is never redone.

A part is one Parquet file of PART_SCHEMA whose name is the hash of its bytes; it appears under its final
name only when it is whole and on disk. The files alone decide what is done.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
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
from distill_data.part_file import encode_part, is_part, open_part, read_columns, read_index
from distill_data.records import PART_SCHEMA, Trace
from distill_data.trace_index import INDEX_SCHEMA, without_duplicates
from distill_data.trace_table import traces_to_table

_OPEN_PARTS = 4
_PARTS_AT_ONCE = 256


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
        self._columns: OrderedDict[tuple[str, ...], pa.Table] = OrderedDict()

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
        names = pa.array(self.parts(), pa.string())
        if not len(names):
            return INDEX_SCHEMA.empty_table()
        pieces = [self._index_parts(names, start) for start in range(0, len(names), _PARTS_AT_ONCE)]
        return without_duplicates(pa.concat_tables(pieces))

    def read(self, locations: pa.Table, columns: list[str] | None = None) -> pa.Table:
        """The traces at `locations` (columns `part`, `row`), in that order: PART_SCHEMA, or only some columns of it.

        Raises:
            TraceStoreError: a part is missing, or its bytes do not match its name (of some columns: their checksums).
        """
        parts = locations["part"].combine_chunks()
        rows = locations["row"].to_numpy()
        which = parts.indices.to_numpy()
        pieces, positions = [], []
        for number in np.unique(which):
            wanted = np.flatnonzero(which == number)
            name = parts.dictionary[int(number)].as_py()
            part = self._part(name).read() if columns is None else self.columns_of(name, columns)
            pieces.append(_rows_at(part, rows[wanted]))
            positions.append(wanted)
        if not pieces:
            return PART_SCHEMA.empty_table().select(columns or PART_SCHEMA.names)
        return _rows_at(pa.concat_tables(pieces), np.argsort(np.concatenate(positions)))

    def columns_of(self, name: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a whole part, in file order; the last few parts' are kept.

        Raises:
            TraceStoreError: the part is missing or damaged.
        """
        key = (name, *columns)
        if key not in self._columns:
            self._columns[key] = read_columns(self.folder / name, columns)
        self._columns.move_to_end(key)
        if len(self._columns) > _OPEN_PARTS:
            self._columns.popitem(last=False)
        return self._columns[key]

    def _place(self, data: pa.Buffer | bytes, target: Path) -> None:
        try:
            place(data, target)
        except OSError as error:
            if os.path.isdir(self.folder):
                todo = "free space or fix the folder, then run the same command again; everything committed is kept"
            else:
                todo = "its folder is gone: mount its disk or bring it back, then run the same command again"
            raise TraceStoreError(f"cannot write {target}: {reason_of(error)}: {todo}") from error

    def _index_parts(self, names: pa.StringArray, start: int) -> pa.Table:
        """The index of the next parts; as a table for each of thousands of parts it would take twice the memory."""
        tables = [read_index(self.folder / name.as_py()) for name in names[start : start + _PARTS_AT_ONCE]]
        rows = [len(table) for table in tables]
        numbers = np.repeat(np.arange(start, start + len(tables), dtype=np.int32), rows)
        row = pa.array(np.concatenate([np.arange(count, dtype=np.int32) for count in rows]))
        table = pa.concat_tables(tables).combine_chunks()
        return table.append_column("part", pa.DictionaryArray.from_arrays(numbers, names)).append_column("row", row)

    def _part(self, name: str) -> pq.ParquetFile:
        """A whole part, checked against the hash in its name; the last few stay open."""
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        self._open[name] = open_part(self.folder / name)
        if len(self._open) > _OPEN_PARTS:
            self._open.popitem(last=False)
        return self._open[name]


def _rows_at(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The table's rows in this order; not copied where they stand together, as in a store that one build wrote."""
    if len(rows) and (np.diff(rows) == 1).all():
        return table.slice(int(rows[0]), len(rows))
    return table.take(rows)
