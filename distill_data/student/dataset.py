"""Soft labels as a map-style PyTorch dataset: any trace at any time, as views of an Arrow table.

The table may be larger than memory where it lies in a mapped file (`Corpus.reader` lays it out so).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from torch.utils.data import Dataset

from distill_data.errors import StudentError
from distill_data.student.blocks import COLUMNS, Block, Row
from distill_data.student.label_kind import OnUnlabelled


class SoftLabelDataset(Dataset[Row]):
    """Traces of a table of SOFT_LABELS_SCHEMA, one an item; nothing is copied.

    Traces longer than `max_length` (prompt and completion tokens) are left out and counted in `too_long`, never cut.
    `rows` are those of the rest in the table and `lengths` their tokens, int64 [traces] both, `longest` is the greatest
    of these, and `max_token_id` the largest id in the table. `unlabelled` is that of a `LabelKind`.

    Raises:
        StudentError: no trace is left, or one is refused as `blocks.Block` says.
    """

    def __init__(self, table: pa.Table, max_length: int, unlabelled: OnUnlabelled = "refuse"):
        batches = [batch for batch in table.select(["trace_id", *COLUMNS]).to_batches() if batch.num_rows]
        self._blocks = [Block(batch, unlabelled) for batch in batches]
        if not self._blocks:
            raise StudentError("there are no traces: build a corpus that keeps some first")
        lengths = [block.lengths for block in self._blocks]
        self._rows = np.concatenate([_kept_rows(at, rows, max_length) for at, rows in enumerate(lengths)])
        self.too_long = table.num_rows - len(self._rows)
        if not len(self._rows):
            raise too_long_error(table.num_rows, max_length, min(int(rows.min()) for rows in lengths))
        self.lengths = np.concatenate([rows[rows <= max_length] for rows in lengths]).astype(np.int64)
        self.longest = int(self.lengths.max())
        starts = np.cumsum([0, *(len(rows) for rows in lengths)])
        self.rows = starts[self._rows[:, 0]] + self._rows[:, 1]
        self.max_token_id = max(block.max_token_id for block in self._blocks)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        block, row = self._rows[index]
        return self._blocks[block].row(row)


def too_long_error(traces: int, max_length: int, shortest: int) -> StudentError:
    """No trace is short enough to be trained on."""
    return StudentError(
        f"all {traces} traces are longer than max_length {max_length} (the shortest has "
        f"{shortest} tokens): raise student.train.max_length"
    )


def _kept_rows(block: int, lengths: np.ndarray, max_length: int) -> np.ndarray:
    """(block, row) of the traces that fit: int64 [kept, 2]."""
    rows = np.flatnonzero(lengths <= max_length)
    return np.stack([np.full_like(rows, block), rows], axis=1)
