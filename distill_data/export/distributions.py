"""Soft labels as columns of one entry per position: the shift, done once for every tool. Pure and vectorised.

A causal model's logits at position t predict token t + 1. Entry j of a trace's soft labels describes the distribution
that completion token j came from, which stands at position P + j (P prompt tokens): its place is position P + j - 1.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.corpus.read import Corpus
from distill_data.errors import CorpusError

IGNORED = -100  # the label that trainers leave out of the loss
_MEASURED_ROWS = 16  # however long traces are
_BATCH_ENTRIES = 8_000_000  # entries of a batch's support, padding included: about 100 MB in all columns


@dataclass(frozen=True)
class PositionLabels:
    """B traces as flat arrays, trace after trace; trace b has P_b prompt and T_b completion tokens, L_b in all.

    `counts` and `completed` have one entry per position, ΣL; `counts` is how many tokens the distribution of the
    *next* token keeps, 0 where none is known (inside the prompt, and at the last token). `support_ids` and
    `support_logprobs` are ΣS long, in the order of the positions, likeliest first.
    """

    lengths: np.ndarray  # int64 [B]: L
    input_ids: np.ndarray  # int32 [ΣL]
    completed: np.ndarray  # bool [ΣL]: whether the token at this position is the teacher's
    counts: np.ndarray  # int64 [ΣL]
    support_ids: np.ndarray  # int32 [ΣS]
    support_logprobs: np.ndarray  # float32 [ΣS], natural, normalised over the full vocabulary

    @property
    def labels(self) -> np.ndarray:
        """The token at each position where the teacher said it, IGNORED over the prompt: int32 [ΣL]."""
        return np.where(self.completed, self.input_ids, IGNORED).astype(np.int32)


@dataclass(frozen=True)
class Extent:
    """How large the rows of some splits are, found in one pass over them."""

    longest: int  # tokens of the longest trace
    widest: int  # entries of the widest support
    rarest_id: int  # the token id that the fewest supports hold, the highest of several: nothing predicts it

    @property
    def batch_rows(self) -> int:
        """Traces at a time that keep memory bounded, whatever their lengths."""
        return max(1, _BATCH_ENTRIES // (self.longest * self.widest))


def position_labels(batch: pa.RecordBatch) -> PositionLabels:
    """Rows of SOFT_LABELS_SCHEMA by position.

    Raises:
        CorpusError: a trace has a completion token without a distribution.
    """
    _refuse_unlabelled(batch)
    prompts, completions = (_lengths(batch, f"{part}_token_ids") for part in ("prompt", "completion"))
    lengths = prompts + completions
    starts = offsets(lengths)
    position = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    completed = position >= np.repeat(prompts, lengths)
    predicts = (position >= np.repeat(prompts - 1, lengths)) & (position < np.repeat(lengths - 1, lengths))
    input_ids = np.empty(len(position), np.int32)
    input_ids[~completed] = _values(batch, "prompt_token_ids")
    input_ids[completed] = _values(batch, "completion_token_ids")
    counts = np.zeros(len(position), np.int64)
    counts[predicts] = _values(batch, "support_counts")
    return PositionLabels(
        lengths=lengths,
        input_ids=input_ids,
        completed=completed,
        counts=counts,
        support_ids=_values(batch, "support_ids"),
        support_logprobs=_values(batch, "support_logprobs").astype(np.float32),
    )


def measure(corpus: Corpus, splits: Sequence[str]) -> Extent:
    """The extent of some splits; reads all their soft labels once, so that nothing is written of what cannot be.

    Raises:
        CorpusError: a trace has a completion token without a distribution, or a file is damaged.
    """
    longest, widest, seen = 0, 0, np.zeros(1, np.int64)
    for split in splits:
        for batch in corpus.batches("soft_labels", split, _MEASURED_ROWS):
            labels = position_labels(batch)
            longest = max(longest, int(labels.lengths.max()))
            widest = max(widest, int(labels.counts.max()))
            seen = _tally(seen, labels.support_ids, int(labels.input_ids.max()))
    return Extent(longest, widest, len(seen) - 1 - int(np.argmin(seen[::-1])))


def lists(lengths: np.ndarray, values: np.ndarray | pa.Array) -> pa.ListArray:
    """Consecutive runs of `values` as lists of these lengths."""
    return pa.ListArray.from_arrays(pa.array(offsets(lengths).astype(np.int32)), pa.array(values))


def offsets(lengths: np.ndarray) -> np.ndarray:
    """Where consecutive runs of these lengths start and end: int64 [len + 1]."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _tally(seen: np.ndarray, ids: np.ndarray, highest: int) -> np.ndarray:
    """How many supports hold each id, up to the highest id that is anywhere."""
    counts = np.bincount(ids, minlength=max(len(seen), highest + 1))
    counts[: len(seen)] += seen
    return counts


def _refuse_unlabelled(batch: pa.RecordBatch) -> None:
    unlabelled = np.flatnonzero(_unlabelled(batch))
    if len(unlabelled):
        first = int(unlabelled[0])
        tokens = max(0, int(_lengths(batch, "completion_token_ids")[first]))
        raise CorpusError(
            f"trace {batch.column('trace_id')[first].as_py()} has no soft labels for each of its {tokens} completion "
            f"tokens ({len(unlabelled)} such traces among {len(batch)}): export a format of text, or build a corpus "
            "of traces with soft labels"
        )


def _unlabelled(batch: pa.RecordBatch) -> np.ndarray:
    """Which rows lack a prompt, a completion, or a distribution of finite log-probabilities at a completion token."""
    tokens, counted = _lengths(batch, "completion_token_ids"), _lengths(batch, "support_counts")
    ids, logprobs = _lengths(batch, "support_ids"), _lengths(batch, "support_logprobs")
    counts, finite = _values(batch, "support_counts"), np.isfinite(_values(batch, "support_logprobs"))
    bad = (_lengths(batch, "prompt_token_ids") < 1) | (tokens < 1) | (counted != tokens)
    bad |= (_sums(counted, counts) != ids) | (logprobs != ids)
    return bad | (_sums(counted, counts == 0) > 0) | (_sums(logprobs, ~finite) > 0)


def _sums(lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sums of consecutive runs: int64, one per run."""
    return np.diff(offsets(values)[offsets(np.maximum(lengths, 0))])


def _lengths(batch: pa.RecordBatch, name: str) -> np.ndarray:
    """Lengths of lists; -1 where there is none."""
    return pc.fill_null(pc.list_value_length(batch.column(name)), -1).to_numpy().astype(np.int64)


def _values(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return pc.list_flatten(batch.column(name)).to_numpy()
