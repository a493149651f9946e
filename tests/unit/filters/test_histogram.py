from __future__ import annotations

import json

import numpy as np
import pytest

from distill_data.filters.histogram import histogram


def test_histograms_are_robust() -> None:
    values = np.concatenate((np.linspace(0, 1, 1001), [1e9, np.nan, -np.inf])).astype(np.float32)
    found = histogram(values, bins=10)
    assert len(found["edges"]) == 11 and sum(found["counts"]) == 1003
    assert found["edges"][0] == pytest.approx(0.01, abs=2e-3) and found["edges"][-1] == pytest.approx(0.99, abs=2e-3)
    assert found["counts"][0] > found["counts"][1]  # what is below the first edge is in it
    assert json.loads(json.dumps(found)) == found


def test_histograms_of_little() -> None:
    assert histogram(np.array([np.nan])) == {"edges": [], "counts": []}
    assert histogram(np.array([])) == {"edges": [], "counts": []}
    assert histogram(np.array([3.0, 3.0, np.nan])) == {"edges": [3.0, 3.0], "counts": [2]}
