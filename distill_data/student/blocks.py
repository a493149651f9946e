"""Record batches of soft labels as flat numpy views, and single traces out of them.

Nothing is copied, unless a position without soft labels is to have a hard one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distill_data.errors import StudentError
from distill_data.records import SOFT_LABEL_FIELDS
from distill_data.student.label_kind import OnUnlabelled

Row = dict[str, np.ndarray]
"""One trace: prompt_token_ids int32 [P], completion_token_ids int32 [T], sampled_logprobs float32 [T], NaN where the
teacher never saw the token, support_counts uint8 [T], support_ids int32 [S] and support_logprobs float16 [S]."""

COLUMNS = [name for name, _ in SOFT_LABEL_FIELDS]
_ID_COLUMNS = ("prompt_token_ids", "completion_token_ids", "support_ids")
_ROUNDING = np.float16(1e-3)  # of a sure token, whose log-probability may be slightly above 0
_SIGN, _NOT_FINITE = 0x8000, 0x7C00  # bits of a float16: its sign's, and without it, infinity's; NaN's are above


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
        StudentError: a trace's columns do not fit together, or it has a position without soft labels and `unlabelled`
            is `refuse`; it is named.
    """

    def __init__(self, batch: pa.RecordBatch, unlabelled: OnUnlabelled = "refuse"):
        self._columns = {name: _column(batch.column(name)) for name in COLUMNS}
        _refuse(
            batch, _misfits(self._columns), "soft labels that do not fit its tokens",
            "check the corpus with `distill-data corpus verify` and build it again",
        )  # fmt: skip
        if self._columns["support_counts"].values.min(initial=1) == 0:
            if unlabelled == "refuse":
                _refuse(
                    batch, _without_labels(self._columns) > 0, "tokens without soft labels",
                    "leave it out, or set student.train.loss.unlabelled: cross_entropy",
                )  # fmt: skip
            if unlabelled == "cross_entropy":
                self._columns = _with_hard_labels(self._columns)
        self._look_up()

    def _look_up(self) -> None:
        # A memoryview gives one of its numbers faster than an array.
        self._offsets = [self._columns[name].offsets.data for name in _ID_COLUMNS]
        self._values = [self._columns[name].values for name in COLUMNS]

    def __getstate__(self) -> dict[str, Column]:
        return self._columns  # memoryviews do not go to a dataloader's spawned workers

    def __setstate__(self, columns: dict[str, Column]) -> None:
        self._columns = columns
        self._look_up()

    def row(self, index: int) -> Row:
        """One trace, as views."""
        prompt, completion, support = [slice(offsets[index], offsets[index + 1]) for offsets in self._offsets]
        prompt_ids, completion_ids, sampled, counts, ids, logprobs = self._values
        return {
            "prompt_token_ids": prompt_ids[prompt],
            "completion_token_ids": completion_ids[completion],
            "sampled_logprobs": sampled[completion],
            "support_counts": counts[completion],
            "support_ids": ids[support],
            "support_logprobs": logprobs[support],
        }

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
    """Which rows have no prompt, no completion, what is no log-probability, or columns of other lengths."""
    tokens = columns["completion_token_ids"].lengths
    counts, supports = columns["support_counts"], columns["support_ids"].lengths
    bad = (columns["prompt_token_ids"].lengths < 1) | (tokens < 1)
    bad |= (columns["sampled_logprobs"].lengths != tokens) | (counts.lengths != tokens)
    bad |= (columns["support_logprobs"].lengths != supports) | (counts.row_sums() != supports)
    logprobs = columns["support_logprobs"]
    if not _are_logprobs(logprobs.values):
        bad |= Column(~(np.isfinite(logprobs.values) & (logprobs.values <= _ROUNDING)), logprobs.offsets).row_sums() > 0
    return bad


def _are_logprobs(values: np.ndarray) -> bool:
    """Whether float16 are all finite and at most 0, by their bits: numpy would widen every one to look at it."""
    negative, positive = values.view(np.uint16).max(initial=0), values.view(np.int16).max(initial=0)
    return negative < _SIGN + _NOT_FINITE and positive <= _ROUNDING.view(np.int16)


def _refuse(batch: pa.RecordBatch, bad: np.ndarray, what: str, todo: str) -> None:
    if rows := np.flatnonzero(bad).tolist():
        name = batch.column("trace_id")[rows[0]].as_py()
        raise StudentError(f"trace {name} has {what} ({len(rows)} such traces): {todo}")


def _without_labels(columns: dict[str, Column]) -> np.ndarray:
    """Positions of every row that have no support: int64 [rows]."""
    counts = columns["support_counts"]
    return Column(counts.values == 0, counts.offsets).row_sums()


def _with_hard_labels(columns: dict[str, Column]) -> dict[str, Column]:
    """The same, where a position without support has the completion's token with probability 1."""
    counts, ids, logprobs = (columns[name] for name in ("support_counts", "support_ids", "support_logprobs"))
    bare = counts.values == 0
    places = np.cumsum(counts.values, dtype=np.int64)[bare]
    offsets = ids.offsets + np.concatenate(([0], np.cumsum(_without_labels(columns))))
    tokens = columns["completion_token_ids"].values[bare]
    return columns | {
        "support_counts": Column(np.maximum(counts.values, 1), counts.offsets),
        "support_ids": Column(np.insert(ids.values, places, tokens), offsets),
        "support_logprobs": Column(np.insert(logprobs.values, places, np.float16(0.0)), offsets),
    }
