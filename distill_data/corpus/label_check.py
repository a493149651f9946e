"""Whether every row of a version whose teacher classified has a distribution over all its labels."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_data.records import LABEL_PROBABILITIES

_ROUNDING = 1e-4  # of a sum of float32


def label_problems(traces: Path, labels: list[str], name: str) -> Iterator[str]:
    """What is wrong with the distributions of a file of traces, one line a problem.

    Args:
        traces: the file.
        labels: all of the version's, in order.
        name: what the file is called in a message.
    """
    column = pq.read_table(traces, columns=[LABEL_PROBABILITIES.name])[LABEL_PROBABILITIES.name].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy()
    if (lengths != len(labels)).any():
        yield f"{name}: row {int(np.argmax(lengths != len(labels)))}: label_probabilities does not have every label"
        return
    flat = column.flatten()
    if flat.field("label").to_pylist() != labels * len(column):
        yield f"{name}: label_probabilities does not have the labels in the manifest's order"
    values = flat.field("probability").to_numpy().reshape(-1, len(labels)).astype(np.float64)
    wrong = ~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1.0) <= _ROUNDING))
    if wrong.any():
        yield f"{name}: row {int(np.argmax(wrong))}: label_probabilities is no distribution"
