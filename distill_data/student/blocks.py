"""Record batches of soft labels as flat numpy views, and single traces out of them; nothing is copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distill_data.errors import StudentError
from distill_data.records import SOFT_LABEL_FIELDS

Row = dict[str, np.ndarray]
"""One trace: prompt_token_ids int32 [P], completion_token_ids int32 [T], sampled_logprobs float32 [T],
support_counts uint8 [T], support_ids int32 [S] and support_logprobs float16 [S]."""

COLUMNS = [name for name, _ in SOFT_LABEL_FIELDS]
_ID_COLUMNS = ("prompt_token_ids", "completion_token_ids", "support_ids")
_ALIKE = {
    "prompt_token_ids": "prompt_token_ids",
    "completion_token_ids": "completion_token_ids",
    "sampled_logprobs": "completion_token_ids",
    "support_counts": "completion_token_ids",
    "support_ids": "support_ids",
    "support_logprobs": "support_ids",
}
"""Columns, and the one that each has as many values as in every trace."""
_NOT_FINITE = 0x7C00  # float16 bits without the sign, and above: infinities and NaN


@dataclass(frozen=True)
class Column:
    """Flat values of a list column, and where every row starts and ends in them: [rows + 1], from 0 to all."""

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Values of every row: [rows]."""
        return np.diff(self.offsets)

    def row_sums(self) -> np.ndarray:
        """Sum of every row's values: int64 [rows]."""
        totals = np.concatenate(([0], np.cumsum(self.values, dtype=np.int64)))
        return np.diff(totals[self.offsets])


class Block:
    """The traces of one record batch of SOFT_LABELS_SCHEMA, checked to fit together.

    Raises:
        StudentError: a trace's columns do not fit together; it is named.
    """

    def __init__(self, batch: pa.RecordBatch):
        self._columns = {name: _column(batch.column(name)) for name in COLUMNS}
        misfits = np.flatnonzero(_misfits(self._columns))
        if len(misfits):
            name = batch.column("trace_id")[int(misfits[0])].as_py()
            raise StudentError(
                f"the soft labels of trace {name} do not fit its tokens ({len(misfits)} such traces): "
                "check the corpus with `distill-data corpus verify` and build it again"
            )
        # Columns of equal lengths share their offsets; a memoryview gives one of them faster than an array.
        self._offsets = {name: self._columns[name].offsets.data for name in {*_ALIKE.values()}}
        self._values = [(name, like, self._columns[name].values) for name, like in _ALIKE.items()]

    def row(self, index: int) -> Row:
        """One trace, as views."""
        spans = {name: slice(offsets[index], offsets[index + 1]) for name, offsets in self._offsets.items()}
        return {name: values[spans[like]] for name, like, values in self._values}

    @property
    def lengths(self) -> np.ndarray:
        """Prompt and completion tokens of every trace: [rows]."""
        return self._columns["prompt_token_ids"].lengths + self._columns["completion_token_ids"].lengths

    @property
    def max_token_id(self) -> int:
        """The largest id in prompts, completions and supports."""
        return max(int(self._columns[name].values.max(initial=0)) for name in _ID_COLUMNS)


def _column(array: pa.Array) -> Column:
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=True)
    return Column(values[offsets[0] : offsets[-1]], offsets - offsets[0])


def _misfits(columns: dict[str, Column]) -> np.ndarray:
    """Which rows have no prompt, no completion, a position without support, or columns of other lengths."""
    tokens = columns["completion_token_ids"].lengths
    counts, supports = columns["support_counts"], columns["support_ids"].lengths
    bad = (columns["prompt_token_ids"].lengths < 1) | (tokens < 1)
    bad |= (columns["sampled_logprobs"].lengths != tokens) | (counts.lengths != tokens)
    bad |= (columns["support_logprobs"].lengths != supports) | (counts.row_sums() != supports)
    if counts.values.min(initial=1) == 0:
        bad |= Column(counts.values == 0, counts.offsets).row_sums() > 0
    logprobs = columns["support_logprobs"]
    # By bits: numpy widens every float16 before it looks at it.
    if (logprobs.values.view(np.uint16) & 0x7FFF).max(initial=0) >= _NOT_FINITE:
        bad |= Column(~np.isfinite(logprobs.values), logprobs.offsets).row_sums() > 0
    return bad
