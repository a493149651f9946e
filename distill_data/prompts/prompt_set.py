"""All prompts of a config as one table, with what was dropped and why; saved where workers read them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.errors import TraceStoreError
from distill_data.identity import digest, sequence_digest
from distill_data.records import PROMPT_SCHEMA

ROW_GROUP_ROWS = 1024  # workers read their rows by range
_FORMAT: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False}
DROPPED_SCHEMA = PROMPT_SCHEMA.append(pa.field("drop_reason", pa.string())).append(pa.field("drop_detail", pa.string()))


@dataclass(frozen=True)
class PromptSet:
    """Prompts that are ready to be asked.

    `table` has PROMPT_SCHEMA, one row per prompt_id; `dropped` adds `drop_reason` (`empty_prompt`,
    `empty_completion`, `duplicate_prompt`) and `drop_detail`; `revisions` says per source label what exactly was read,
    and `benchmarks` the same of what it was compared with: its texts' hash and how many prompts touched it.
    """

    table: pa.Table
    dropped: pa.Table
    revisions: dict[str, dict[str, Any]]
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> pa.Table:
        """The prompts at `rows` (ascending); `table.take` would copy every prompt to get them."""
        ends = np.cumsum([len(batch) for batch in self._batches])
        cuts = np.searchsorted(rows, [0, *ends])
        pieces = [
            batch.take(pa.array(rows[start:stop] - (end - len(batch))))
            for batch, end, start, stop in zip(self._batches, ends, cuts, cuts[1:], strict=False)
            if stop > start
        ]
        return pa.Table.from_batches(pieces, self.table.schema)

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return self.table.to_batches()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over prompt_id, source, reference and metadata of the rows, in order."""
        columns = self.table.select(["prompt_id", "source", "reference", "metadata"])
        batches = ([column.to_pylist() for column in batch.columns] for batch in columns.to_batches())
        rows = (digest(row) for columns in batches for row in zip(*columns, strict=True))
        return sequence_digest({"kind": "prompts"}, rows)


def save_prompts(prompt_set: PromptSet, root: Path) -> Path:
    """Write the prompts to `<root>/prompts/<digest>.parquet`, whole or not at all; once per content.

    Raises:
        TraceStoreError: the folder cannot be written (full, read-only, gone); nothing was half-written.
    """
    path = root / "prompts" / f"{prompt_set.digest[:16]}.parquet"
    try:
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)  # the lease made the root; one that vanished is not made again
            _write(prompt_set.table, path)
    except OSError as error:
        raise TraceStoreError(
            f"cannot write {path}: {error.strerror or error}: free space, or set root: to a folder that can be "
            "written, then run the same command again"
        ) from error
    return path


def _write(table: pa.Table, path: Path) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            pq.write_table(table, stream, row_group_size=ROW_GROUP_ROWS, **_FORMAT)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
