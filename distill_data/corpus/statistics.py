"""Measures of a version that its manifest and card show."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.corpus.manifest import FileFacts
from distill_data.records import SoftLabels
from distill_data.soft_labels import tail_mass


@dataclass(frozen=True)
class LabelTally:
    """Sums over completion tokens; tallies of slices add up."""

    tokens: int = 0
    support: int = 0
    tail: float = 0.0
    logprob: float = 0.0

    def __add__(self, other: LabelTally) -> LabelTally:
        return LabelTally(
            self.tokens + other.tokens,
            self.support + other.support,
            self.tail + other.tail,
            self.logprob + other.logprob,
        )


def tally(labels: pa.Table) -> LabelTally:
    """Sums over all tokens of rows with the soft-label columns."""
    flat = SoftLabels(*(_flat(labels[name]) for name in _COLUMNS))
    return LabelTally(
        tokens=len(flat.support_counts),
        support=len(flat.support_ids),
        tail=float(tail_mass(flat).sum(dtype=np.float64)),
        logprob=float(flat.sampled_logprobs.sum(dtype=np.float64)),
    )


_COLUMNS = ("sampled_logprobs", "support_counts", "support_ids", "support_logprobs")


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_flatten(column).to_numpy()


def statistics(decisions: pa.Table, labels: LabelTally, files: list[FileFacts]) -> dict[str, float | int | None]:
    """Measures by name; means are per completion token of kept traces unless the name says otherwise.

    Args:
        decisions: `decide`'s table of all traces.
        labels: of the kept rows.
        files: of the version.
    """
    kept = decisions.filter(pc.is_null(decisions["drop_reason"]))
    lengths = kept["completion_tokens"].to_numpy()
    label_bytes = sum(file.bytes for file in files if file.path.startswith("soft_labels/"))
    tokens = max(labels.tokens, 1)
    return {
        "pass_rate": pc.mean(decisions["passed"].cast(pa.int8())).as_py(),
        "completion_tokens_mean": round(float(lengths.mean()), 2),
        "completion_tokens_p50": int(np.percentile(lengths, 50, method="nearest")),
        "completion_tokens_p95": int(np.percentile(lengths, 95, method="nearest")),
        "completion_tokens_max": int(lengths.max()),
        "completion_tokens_total": int(lengths.sum(dtype=np.int64)),
        "mean_logprob": labels.logprob / tokens,
        "mean_support_size": labels.support / tokens,
        "mean_tail_mass": labels.tail / tokens,
        "soft_label_bytes_per_token": label_bytes / tokens,
    }
