"""Soft labels as training rows: zero-copy access to a corpus table, and batches aligned with the logits.

Logits at position P+t-1 predict completion token t (P prompt tokens). A batch marks those positions in
`label_mask`; its label tensors hold one row per marked position, in the order of `logits[label_mask]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from distill_data.errors import StudentError
from distill_data.records import SOFT_LABEL_FIELDS, SoftLabels
from distill_data.soft_labels import pad_support

Row = dict[str, np.ndarray]
_COLUMNS = [name for name, _ in SOFT_LABEL_FIELDS]
_ID_COLUMNS = ("prompt_token_ids", "completion_token_ids", "support_ids")


@dataclass(frozen=True)
class _Column:
    """Flat values of a list column, and where every row starts and ends in them: [rows + 1]."""

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def used(self) -> np.ndarray:
        return self.values[self.offsets[0] : self.offsets[-1]]

    def row_sums(self) -> np.ndarray:
        """Sum of every row's values: int64 [rows]."""
        totals = np.concatenate(([0], np.cumsum(self.used(), dtype=np.int64)))
        return np.diff(totals[self.offsets - self.offsets[0]])


_Block = dict[str, _Column]


class SoftLabelDataset(Dataset[Row]):
    """Traces of a table of SOFT_LABELS_SCHEMA as numpy views, one trace an item; nothing is copied.

    Items hold prompt_token_ids int32 [P], completion_token_ids int32 [T], sampled_logprobs float32 [T],
    support_counts uint8 [T], support_ids int32 [S] and support_logprobs float16 [S].

    Traces longer than `max_length` (P + T) are left out and counted in `too_long`, never cut. `longest` is
    the length of the longest of the rest, `max_token_id` the largest id in the table.

    Raises:
        StudentError: no trace is left, or a trace's columns do not fit together.
    """

    def __init__(self, table: pa.Table, max_length: int):
        batches = [batch for batch in table.select(["trace_id", *_COLUMNS]).to_batches() if batch.num_rows]
        self._blocks = [_flat_block(batch) for batch in batches]
        if not self._blocks:
            raise StudentError("there are no traces: build a corpus that keeps some first")
        lengths = [_trace_lengths(block) for block in self._blocks]
        self._rows = np.concatenate([_kept_rows(at, rows, max_length) for at, rows in enumerate(lengths)])
        self.too_long = table.num_rows - len(self._rows)
        shortest = min(int(rows.min()) for rows in lengths)
        if not len(self._rows):
            raise StudentError(
                f"all {table.num_rows} traces are longer than max_length {max_length} (the shortest has "
                f"{shortest} tokens): raise student.train.max_length"
            )
        self.longest = max(int(rows[rows <= max_length].max(initial=0)) for rows in lengths)
        self.max_token_id = max(
            int(block[name].used().max(initial=0)) for block in self._blocks for name in _ID_COLUMNS
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        block, row = self._rows[index]
        return {name: column.row(row) for name, column in self._blocks[block].items()}


class SoftLabelCollator:
    """Traces to tensors: B traces padded on the right to L tokens, N completion tokens, K the widest support.

    input_ids int64 [B, L], attention_mask int64 [B, L], label_mask bool [B, L] (N are true), and for the
    marked positions in row-major order: target_ids int64 [N], sampled_logprobs float32 [N], support_ids
    int64 [N, K] padded with 0, support_logprobs float32 [N, K] padded with -inf.
    """

    def __init__(self, pad_token_id: int = 0):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        """One batch of these traces."""
        prompts = np.array([len(row["prompt_token_ids"]) for row in rows])[:, None]
        ends = prompts + np.array([len(row["completion_token_ids"]) for row in rows])[:, None]
        positions = np.arange(ends.max())
        filled = positions < ends
        input_ids = np.full(filled.shape, self.pad_token_id, np.int64)
        input_ids[filled] = np.concatenate(
            [row[name] for row in rows for name in ("prompt_token_ids", "completion_token_ids")]
        )
        flat = {name: np.concatenate([row[name] for row in rows]) for name in _COLUMNS}
        support_ids, support_logprobs = pad_support(
            SoftLabels(*(flat[name] for name in SoftLabels.__dataclass_fields__))
        )
        batch = {
            "input_ids": input_ids,
            "attention_mask": filled.astype(np.int64),
            "label_mask": (positions >= prompts - 1) & (positions < ends - 1),
            "target_ids": flat["completion_token_ids"].astype(np.int64),
            "sampled_logprobs": flat["sampled_logprobs"],
            "support_ids": support_ids.astype(np.int64),
            "support_logprobs": support_logprobs,
        }
        return {name: torch.from_numpy(values) for name, values in batch.items()}


def _flat_block(batch: pa.RecordBatch) -> _Block:
    """The list columns of one record batch as flat views, checked to fit together."""
    block = {name: _flat_column(batch.column(name)) for name in _COLUMNS}
    misfits = np.flatnonzero(_misfits(block))
    if len(misfits):
        name = batch.column("trace_id")[int(misfits[0])].as_py()
        raise StudentError(
            f"the soft labels of trace {name} do not fit its tokens ({len(misfits)} such traces): "
            "check the corpus with `distill-data corpus verify` and build it again"
        )
    return block


def _flat_column(array: pa.Array) -> _Column:
    return _Column(array.values.to_numpy(zero_copy_only=True), array.offsets.to_numpy())


def _misfits(block: _Block) -> np.ndarray:
    """Which rows have no prompt, no completion, a position without support, or columns of other lengths."""
    tokens = block["completion_token_ids"].lengths
    counts, supports = block["support_counts"], block["support_ids"].lengths
    bad = (block["prompt_token_ids"].lengths < 1) | (tokens < 1)
    bad |= (block["sampled_logprobs"].lengths != tokens) | (counts.lengths != tokens)
    bad |= (block["support_logprobs"].lengths != supports) | (counts.row_sums() != supports)
    bad |= _Column(counts.values == 0, counts.offsets).row_sums() > 0
    logprobs = block["support_logprobs"]
    if not np.isfinite(logprobs.used()).all():
        bad |= _Column(~np.isfinite(logprobs.values), logprobs.offsets).row_sums() > 0
    return bad


def _trace_lengths(block: _Block) -> np.ndarray:
    return block["prompt_token_ids"].lengths + block["completion_token_ids"].lengths


def _kept_rows(block: int, lengths: np.ndarray, max_length: int) -> np.ndarray:
    """(block, row) of the traces that fit: int64 [kept, 2]."""
    rows = np.flatnonzero(lengths <= max_length)
    return np.stack([np.full_like(rows, block), rows], axis=1)
