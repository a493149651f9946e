"""Geometry of the histograms: what is where, horizontally in percent of the plot, vertically in pixels. Pure.

Percentages let a chart fill whatever width there is while its text keeps its size.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from distill_data.page.histogram import Histogram, Series, Threshold, round_step

PANEL_HEIGHT = 120.0
_TICKS = 6


@dataclass(frozen=True)
class Mark:
    """A tick or a line with its text."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram."""

    x: float
    width: float
    y: float
    height: float
    title: str


@dataclass(frozen=True)
class Panel:
    """One series of a histogram."""

    label: str
    tone: str
    facts: str
    bars: list[Bar]
    y_ticks: list[Mark]


@dataclass(frozen=True)
class HistogramChart:
    """Panels one above the other over the same horizontal axis."""

    source: Histogram
    panels: list[Panel]
    x_ticks: list[Mark]
    thresholds: list[Mark]


def histogram_chart(source: Histogram) -> HistogramChart:
    """Bars of equal width, bin by bin, whatever the edges are: thresholds lie between them in proportion."""
    return HistogramChart(
        source=source,
        panels=[_panel(source, series) for series in source.series],
        x_ticks=_ticks(source),
        thresholds=[_threshold(source.edges, line) for line in source.thresholds],
    )


def number(value: float) -> str:
    """A figure for an axis: short, without trailing zeros."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % size == 0):
            return f"{value / size:.4g}{suffix}"
    text = f"{value:.4g}"
    return "0" if text == "-0" else text.replace("-", "\u2212")


def _panel(source: Histogram, series: Series) -> Panel:
    top = _round_up(max(series.counts, default=0))
    bins = len(series.counts)
    bars = []
    for place, count in enumerate(series.counts):
        height = max(PANEL_HEIGHT * count / top, 1.0) if count else 0.0
        title = f"{_span(source, place)}: {count:,} {source.counted}"
        bars.append(Bar(100.0 * place / bins, 100.0 / bins, PANEL_HEIGHT - height, height, title))
    facts = f"{series.total:,} {source.counted}"
    facts += f", median {number(series.median)}" if series.median is not None else ""
    ticks = [Mark(PANEL_HEIGHT * (1 - share), number(top * share)) for share in (0.0, 0.5, 1.0)]
    return Panel(series.label, series.label, facts, bars, ticks if series.total else ticks[:1])


def _ticks(source: Histogram) -> list[Mark]:
    """Ticks at round values; at some edges where bins are unlike, in the middle of a bin for one whole number."""
    edges = source.edges
    bins, width = len(edges) - 1, edges[1] - edges[0]
    if not np.allclose(np.diff(edges), width):
        return [Mark(100.0 * edge / bins, number(edges[edge])) for edge in range(0, bins + 1, -(-bins // _TICKS))]
    step = round_step(edges[-1] - edges[0], _TICKS, source.whole)
    middle = 0.5 if source.whole and width == 1 else 0.0
    last = edges[-2] if middle else edges[-1]
    values = [step * place for place in range(math.ceil(edges[0] / step), math.floor(last / step + 1e-9) + 1)]
    return [Mark(100.0 * ((value - edges[0]) / width + middle) / bins, number(value)) for value in values]


def _span(source: Histogram, place: int) -> str:
    """The values of one bin, in words."""
    low, high = source.edges[place], source.edges[place + 1]
    if source.open and place in (0, len(source.edges) - 2):
        return f"below {number(high)}" if place == 0 else f"{number(low)} or more"
    if source.whole:
        return number(low) if high - low == 1 else f"{number(low)} to {number(high - 1)}"
    return f"{number(low)} to {number(high)}"


def _round_up(count: int) -> int:
    """The next 2, 4, 6, 8 or 10 times a power of ten: its half is a whole number too."""
    size = 1
    while True:
        for digit in (2, 4, 6, 8, 10):
            if digit * size >= count:
                return digit * size
        size *= 10


def _threshold(edges: list[float], line: Threshold) -> Mark:
    beyond = not edges[0] <= line.value <= edges[-1]
    return Mark(100.0 * _place(edges, line.value), line.label + (", beyond every value here" if beyond else ""))


def _place(edges: list[float], value: float) -> float:
    """Where a value is between the first edge, 0, and the last, 1; bins are equally wide."""
    place = min(max(bisect_right(edges, value) - 1, 0), len(edges) - 2)
    width = edges[place + 1] - edges[place]
    inside = (value - edges[place]) / width if width not in (0.0, float("inf")) else 0.0
    return (place + min(max(inside, 0.0), 1.0)) / (len(edges) - 1)
