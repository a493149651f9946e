"""One pass over what a version says of every trace: outcomes by prompt, lengths, and which dropped rows are shown.

Read are the light columns, a batch at a time; what stays are 9 bytes a trace and a row per prompt.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from distill_data.corpus.data_file import RowGroup

REJECTED_SHOWN = 12  # dropped rows shown per drop reason
BATCH_ROWS = 4096
_COLUMNS = ("trace_id", "prompt_id", "source", "passed", "finish_reason", "completion_tokens", "mean_logprob")
_PROMPT_ROWS = 200_000  # partial sums are put together when there are so many


@dataclass(frozen=True)
class Scan:
    """What one pass found.

    `lengths` (int32) and `logprobs` (float32) are of the traces that have a completion, and `kept` says which of them
    were kept. `prompts` has a row per prompt: prompt_id, source, judged and passed traces. `rejected` gives, by drop
    reason, the rows of `rejected/` to show: (row group, row in it).
    """

    lengths: np.ndarray
    logprobs: np.ndarray
    kept: np.ndarray
    prompts: pa.Table
    rejected: dict[str, list[tuple[int, int]]]

    @property
    def judged(self) -> int:
        """Traces that have a verdict."""
        return int(self.prompts["judged"].to_numpy().sum())

    @property
    def passed(self) -> int:
        """Traces that passed."""
        return int(self.prompts["passed"].to_numpy().sum())


def scan(kept_groups: Sequence[RowGroup], rejected: Sequence[RowGroup]) -> Scan:
    """Read the light columns of a version's rows once: those of `traces/` and those of `rejected/`.

    Raises:
        CorpusError: a file was damaged or replaced since it was checked.
    """
    prompts, lengths, logprobs, kept = _Prompts(), [], [], []
    chosen = _Chosen()
    for is_kept, group, batch in _light_batches(kept_groups, rejected):
        prompts.add(batch)
        if not is_kept:
            chosen.add(group, batch)
        complete = batch.filter(pc.fill_null(pc.greater(batch["completion_tokens"], 0), False))
        lengths.append(complete["completion_tokens"].to_numpy())
        logprobs.append(complete["mean_logprob"].to_numpy())
        kept.append(np.full(len(complete), is_kept))
    return Scan(
        lengths=np.concatenate(lengths),
        logprobs=np.concatenate(logprobs),
        kept=np.concatenate(kept),
        prompts=prompts.table(),
        rejected=chosen.rows(),
    )


def _light_batches(
    kept_groups: Sequence[RowGroup], rejected: Sequence[RowGroup]
) -> Iterator[tuple[bool, int, pa.Table]]:
    """(kept?, number in the sequence of row groups, rows) of all families of rows."""
    for is_kept, groups, columns in ((True, kept_groups, _COLUMNS), (False, rejected, (*_COLUMNS, "drop_reason"))):
        for number, group in enumerate(groups):
            for batch in group.batches(columns, BATCH_ROWS):
                yield is_kept, number, pa.Table.from_batches([batch])


class _Prompts:
    """Judged and passed traces by prompt; a prompt's traces lie in several families."""

    def __init__(self) -> None:
        self._pieces: list[pa.Table] = []

    def add(self, batch: pa.Table) -> None:
        judged = pc.is_valid(batch["passed"]).cast(pa.int64())
        passed = pc.fill_null(batch["passed"], False).cast(pa.int64())
        asked = pc.is_valid(batch["finish_reason"])  # null for prompts that no teacher saw
        rows = batch.select(["prompt_id"]).append_column("source", pc.fill_null(batch["source"], ""))
        self._pieces.append(_summed(rows.append_column("judged", judged).append_column("passed", passed).filter(asked)))
        if sum(map(len, self._pieces[1:])) > _PROMPT_ROWS:
            self._pieces = [self.table()]

    def table(self) -> pa.Table:
        return _summed(pa.concat_tables(self._pieces))


def _summed(rows: pa.Table) -> pa.Table:
    grouped = rows.group_by(["prompt_id", "source"]).aggregate([("judged", "sum"), ("passed", "sum")])
    return grouped.select(["prompt_id", "source", "judged_sum", "passed_sum"]).rename_columns(rows.column_names)


class _Chosen:
    """The rows with the smallest hashes of their ids, by drop reason: a sample that does not depend on order."""

    def __init__(self) -> None:
        self._best: dict[str, list[tuple[int, int, int]]] = {}
        self._group, self._start = -1, 0

    def add(self, group: int, batch: pa.Table) -> None:
        self._start = self._start if group == self._group else 0
        self._group = group
        hashes = row_hashes(pc.coalesce(batch["trace_id"], batch["prompt_id"]))
        reasons = batch["drop_reason"].combine_chunks().dictionary_encode()
        for code, reason in enumerate(reasons.dictionary.to_pylist()):
            rows = np.flatnonzero(reasons.indices.to_numpy() == code)
            rows = rows[np.argsort(hashes[rows], kind="stable")[:REJECTED_SHOWN]]
            found = [(int(hashes[row]), group, self._start + int(row)) for row in rows]
            self._best[reason] = sorted(self._best.get(reason, []) + found)[:REJECTED_SHOWN]
        self._start += len(batch)

    def rows(self) -> dict[str, list[tuple[int, int]]]:
        return {reason: [(group, row) for _, group, row in best] for reason, best in self._best.items()}


def row_hashes(ids: pa.ChunkedArray) -> np.ndarray:
    """A hash of every id: uint64 [rows]."""
    return np.fromiter(
        (xxhash.xxh3_64_intdigest((name or "").encode()) for name in ids.to_pylist()), np.uint64, len(ids)
    )
