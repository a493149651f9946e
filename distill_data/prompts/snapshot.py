"""Read rows of a saved prompt set: a worker gets row numbers and reads the prompts itself."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.errors import TraceStoreError, reason_of
from distill_data.records import PROMPT_SCHEMA, Prompt, table_to_prompts


def read_prompts(path: Path, rows: np.ndarray) -> list[Prompt]:
    """The prompts at `rows` (ascending), reading only the row groups that hold them.

    Raises:
        TraceStoreError: the file is gone or damaged.
    """
    try:
        table = _read(path, rows)
        prompts = table_to_prompts(table)
        if [prompt.prompt_id for prompt in prompts] != table["prompt_id"].to_pylist():
            raise ValueError("prompts do not match their ids")
        return prompts
    except (OSError, ValueError, TypeError, LookupError, pa.ArrowException) as error:
        raise TraceStoreError(
            f"the saved prompts {path} cannot be read ({reason_of(error)}): see that their disk is there, delete "
            "them if they are, and run the same command again, which writes them again"
        ) from error


def _read(path: Path, rows: np.ndarray) -> pa.Table:
    found = path.stat()
    metadata, ends = _layout(path, found.st_size, found.st_mtime_ns)
    with pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True) as file:
        if unknown := [field.name for field in file.schema_arrow if field not in PROMPT_SCHEMA]:
            raise ValueError(f"{', '.join(unknown)}: no columns of saved prompts")
        groups = np.unique(np.searchsorted(ends, rows, side="right"))
        present = [np.arange(ends[group - 1] if group else 0, ends[group]) for group in groups]
        table = file.read_row_groups(groups.tolist())
    return table.take(np.searchsorted(np.concatenate([*present, rows[:0]]), rows))


@lru_cache(maxsize=1)
def _layout(path: Path, size: int, modified_ns: int) -> tuple[pq.FileMetaData, np.ndarray]:
    """A file's footer and where its row groups end, read once: it grows with the prompts, a shard does not."""
    metadata = pq.read_metadata(path)
    return metadata, np.cumsum([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)])
