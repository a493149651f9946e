"""Read rows of a saved prompt set: a worker gets row numbers and reads the prompts itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from distill_data.records import Prompt, table_to_prompts


def read_prompts(path: Path, rows: np.ndarray) -> list[Prompt]:
    """The prompts at `rows` (ascending), reading only the row groups that hold them."""
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    groups = np.unique(np.searchsorted(ends, rows, side="right"))
    present = [np.arange(ends[group] - sizes[group], ends[group]) for group in groups]
    table = file.read_row_groups(groups.tolist())
    return table_to_prompts(table.take(np.searchsorted(np.concatenate([*present, rows[:0]]), rows)))
