from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from distill_data.page.charts import histogram_chart, number
from distill_data.page.curves import CURVES_HEIGHT, CURVES_SHOWN, curve_chart
from distill_data.page.histogram import BINS, histogram, measured, round_edges
from distill_data.page.rates import rates


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (3, 3), (0, 1), (-7.3, -0.001), (0, 32768), (1e-9, 2e-9), (5, 5.0001), (0, 40), (-1, 1e9)]
)
@pytest.mark.parametrize("whole", [False, True])
def test_edges_hold_every_value_in_a_few_equal_bins(low: float, high: float, whole: bool) -> None:
    edges = round_edges(low, high, whole)
    assert 2 <= len(edges) <= BINS + 1
    assert edges[0] <= low and high < edges[-1]
    assert np.diff(edges) == pytest.approx(edges[1] - edges[0])
    if whole:
        assert (edges == np.round(edges)).all()


def test_counts_are_those_of_numpy_and_lose_nothing() -> None:
    rng = np.random.default_rng(0)
    values = {"kept": rng.normal(0, 1, 5000), "dropped": rng.normal(2, 3, 300)}
    found = histogram("x", "", values)
    for series in found.series:
        assert series.counts == np.histogram(values[series.label], found.edges)[0].tolist()
        assert series.total == len(values[series.label])
        assert series.median == np.median(values[series.label])


def test_every_whole_number_has_a_bin_of_its_own_where_there_are_few() -> None:
    found = histogram("x", "", {"kept": np.array([1, 1, 2, 5], np.uint8)}, whole=True)
    assert found.edges == [1, 2, 3, 4, 5, 6]
    assert found.series[0].counts == [2, 1, 0, 0, 1]
    assert [mark.label for mark in histogram_chart(found).x_ticks] == ["1", "2", "3", "4", "5"]


def test_a_series_without_values_stays() -> None:
    found = histogram("x", "", {"kept": np.array([1.0, np.nan]), "dropped": np.empty(0)})
    assert [(series.total, series.median) for series in found.series] == [(1, 1.0), (0, None)]
    assert histogram_chart(found).panels[1].facts == "0 traces"


def test_nothing_at_all_is_a_chart_too() -> None:
    assert histogram_chart(histogram("x", "", {"kept": np.empty(0)})).panels[0].facts == "0 traces"


def test_bars_and_ticks_are_where_their_values_are() -> None:
    chart = histogram_chart(histogram("x", "", {"kept": np.array([0, 10, 10, 399])}, whole=True))
    panel = chart.panels[0]
    assert [(bar.x, bar.title) for bar in panel.bars if bar.height][:2] == [
        (0.0, "0 to 9: 1 traces"),
        (2.5, "10 to 19: 2 traces"),
    ]
    assert panel.bars[1].height == panel.y_ticks[0].at - panel.y_ticks[2].at
    assert [(mark.at, mark.label) for mark in chart.x_ticks] == [(25.0 * part, str(100 * part)) for part in range(5)]


def test_a_measure_shows_where_its_filter_cuts() -> None:
    facts = SimpleNamespace(
        name="share of letters", unit="", reason="too_few_letters", below=0.25, above=None,
        edges=[0.0, 0.5, 1.0, 4.0], kept_counts=[0, 3, 1], dropped_counts=[2, 0, 0],
    )  # fmt: skip
    chart = histogram_chart(measured(facts))
    assert [(mark.at, mark.label) for mark in chart.thresholds] == [
        (pytest.approx(100 * 0.5 / 3), "too_few_letters: below 0.25")
    ]
    assert [panel.label for panel in chart.panels] == ["kept", "dropped"]
    assert [bar.title for bar in chart.panels[0].bars] == [
        "below 0.5: 0 traces",
        "0.5 to 1: 3 traces",
        "1 or more: 1 traces",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (-1.25, "\u22121.25"),
        (999, "999"),
        (1500, "1500"),
        (2000, "2k"),
        (24000, "24k"),
        (3e6, "3M"),
    ],
)
def test_figures_on_axes_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_threshold_beyond_every_value_says_so() -> None:
    facts = SimpleNamespace(
        name="compression", unit="", reason="compressible", below=None, above=6.0,
        edges=[1.0, 1.5, 2.0], kept_counts=[1, 0], dropped_counts=[0, 1],
    )  # fmt: skip
    chart = histogram_chart(measured(facts))
    assert [(mark.at, mark.label) for mark in chart.thresholds] == [
        (100.0, "compressible: above 6, beyond every value here")
    ]


def test_labels_of_curves_do_not_lie_on_each_other() -> None:
    sources = [name for name in "abcdefgh" for _ in range(2)]
    found = rates(pa.table({"source": sources, "judged": [4] * 16, "passed": [4, 3] * 8}))
    assert found is not None
    chart = curve_chart(found)
    heights = sorted(curve.label_y for curve in chart.curves)
    assert len(heights) == 1 + CURVES_SHOWN
    assert min(np.diff(heights)) >= 17 and heights[-1] <= CURVES_HEIGHT
    assert all(curve.points[-1][1] == pytest.approx(0.0) and curve.end == "100.0%" for curve in chart.curves)
