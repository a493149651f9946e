"""How a measure is spread over the traces of a version."""

from __future__ import annotations

from typing import Any

import numpy as np


def histogram(values: np.ndarray, bins: int = 32) -> dict[str, Any]:
    """`edges` (bins + 1 numbers) and `counts` of a measure, NaN left out; ready for JSON.

    Bins are equally wide from the 1st to the 99th percentile, so that one outlier does not flatten the rest; the first
    and the last one are open and hold what is beyond. One bin without a width where both percentiles are one value;
    both lists are empty where nothing was measured.
    """
    said = np.asarray(values, np.float64)
    said = said[~np.isnan(said)]
    finite = said[np.isfinite(said)]
    if not len(finite):
        return {"edges": [], "counts": []}
    low, high = (float(edge) for edge in np.percentile(finite, (1, 99)))
    edges = [low, high] if low == high else np.linspace(low, high, bins + 1).tolist()
    return {"edges": edges, "counts": counts_in(said, edges)}


def counts_in(values: np.ndarray, edges: list[float]) -> list[int]:
    """How many of the values are in each bin, NaN left out; the first and the last bin hold what is beyond."""
    if not edges:
        return []
    said, bins = values[~np.isnan(values)], len(edges) - 1
    inside = np.clip(np.searchsorted(edges, said, side="right") - 1, 0, bins - 1)
    return np.bincount(inside, minlength=bins).tolist()
