"""What the teacher's distributions look like, token by token: entropy and size of the support."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.page.histogram import Histogram, histogram
from distill_data.records import SoftLabels
from distill_data.soft_labels import support_offsets, tail_mass


def labels_of(rows: pa.RecordBatch) -> SoftLabels:
    """The soft labels of all tokens of some rows, end to end."""
    names = ("sampled_logprobs", "support_counts", "support_ids", "support_logprobs")
    return SoftLabels(*(pc.list_flatten(rows[name]).to_numpy(zero_copy_only=False) for name in names))


def entropies(labels: SoftLabels, draws: int | None) -> np.ndarray:
    """Entropy in nats of every position: float64 [T].

    A cut support and its tail taken as one token: -sum(p log p) - t log t, a lower bound of the entropy over the
    vocabulary. Drawn tokens instead estimate it without bias: each stands for max(p, 1 / draws) (Horvitz and Thompson,
    1952; see `distill_data.soft_labels.select_drawn`).
    """
    if not len(labels.support_ids):  # no position keeps anything
        return np.zeros(len(labels.support_counts), np.float64)
    logprobs = labels.support_logprobs.astype(np.float64)
    weights = np.exp(logprobs) if draws is None else np.maximum(np.exp(logprobs), 1.0 / draws)
    inside = -np.add.reduceat(weights * logprobs, support_offsets(labels.support_counts)[:-1])
    if draws is not None:
        return np.maximum(inside, 0.0)
    tail = tail_mass(labels).astype(np.float64)
    return np.maximum(inside - tail * np.log(np.where(tail > 0, tail, 1.0)), 0.0)


@dataclass
class TokenTally:
    """Figures of all tokens that were read: 5 bytes a token."""

    draws: int | None
    entropy: list[np.ndarray] = field(default_factory=list)
    support: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: pa.RecordBatch) -> None:
        """Take in the tokens of some rows of soft labels."""
        labels = labels_of(rows)
        self.entropy.append(entropies(labels, self.draws).astype(np.float32))
        self.support.append(labels.support_counts)

    @property
    def tokens(self) -> int:
        """How many were read."""
        return sum(map(len, self.support))

    def histograms(self, note: str) -> list[Histogram]:
        """Of entropy and of support size; `note` says which tokens these are."""
        entropy = np.concatenate([np.empty(0, np.float32), *self.entropy])
        support = np.concatenate([np.empty(0, np.uint8), *self.support])
        how = "the tail counts as one token" if self.draws is None else f"estimated from {self.draws} draws"
        more: dict[str, Any] = {"counted": "tokens"}
        return [
            histogram("Entropy per token", "nats", {"kept": entropy}, note=f"{note}; {how}", **more),
            histogram("Support per token", "tokens kept", {"kept": support}, whole=True, note=note, **more),
        ]
