"""How what the filters measured is spread over a version's traces, kept and dropped, for its manifest and report."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.corpus.manifest import MeasureFacts
from distill_data.filter_config import Filters
from distill_data.filters.histogram import counts_in, histogram
from distill_data.filters.thresholds import active

_SAMPLED_ROWS = 200_000


class MeasureSample:
    """Measures of every k-th trace, so that memory does not grow with a version: all of them up to 200,000."""

    def __init__(self, traces: int):
        self._step = max(1, -(-traces // _SAMPLED_ROWS))
        self._seen = 0
        self._kept: dict[str, list[np.ndarray]] = {}

    def add(self, measures: dict[str, np.ndarray], rows: int) -> None:
        """The measures, float32 [rows] each, of the next traces in planned order."""
        first = -self._seen % self._step
        for name, values in measures.items():
            self._kept.setdefault(name, []).append(values[first :: self._step])
        self._seen += rows

    def facts(self, drop_reasons: pa.ChunkedArray, filters: Filters) -> list[MeasureFacts]:
        """A histogram per active rule; `drop_reasons` are those of all traces, null for kept ones."""
        kept = pc.is_null(drop_reasons).to_numpy()[:: self._step]
        found = []
        for rule in active(filters):
            values = np.concatenate(self._kept[rule.measure.name])
            edges = histogram(values)["edges"]
            found.append(
                MeasureFacts(
                    name=rule.measure.name,
                    unit=rule.measure.unit,
                    reason=rule.reason,
                    below=rule.threshold if rule.drops == "below" else None,
                    above=rule.threshold if rule.drops == "above" else None,
                    edges=edges,
                    kept_counts=counts_in(values[kept], edges),
                    dropped_counts=counts_in(values[~kept], edges),
                )
            )
        return found
