"""Histograms over round edges. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 40  # at most, of a histogram that this module cuts


@dataclass(frozen=True)
class Series:
    """Counts of one set of values in a histogram's bins, and their median."""

    label: str
    counts: list[int]
    median: float | None = None

    @property
    def total(self) -> int:
        """How many values there are."""
        return sum(self.counts)


@dataclass(frozen=True)
class Threshold:
    """Where a filter cuts: rows `below` or `above` the value are dropped."""

    value: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """Some series over the same bins: bin i holds values from edges[i] up to, not including, edges[i + 1]."""

    title: str
    unit: str
    edges: list[float]
    series: list[Series]
    whole: bool = False  # values are whole numbers
    open: bool = False  # the first and the last bin hold what is beyond their edges too
    counted: str = "traces"
    note: str = ""
    thresholds: tuple[Threshold, ...] = ()


def round_edges(low: float, high: float, whole: bool = False) -> np.ndarray:
    """Edges that hold every value from low to high: multiples of 1, 2 or 5 times a power of ten, at most BINS bins.

    For whole numbers a bin is at least 1 wide.
    """
    span = max(high - low, 1e-9 * max(abs(low), abs(high))) if high > low else 1.0
    for most in range(BINS, 0, -1):  # a span of BINS steps touches one bin more where it does not start at an edge
        step = round_step(span, most, whole)
        first, last = math.floor(low / step), math.floor(high / step) + 1
        if last - first <= BINS:
            break
    return np.arange(first, last + 1) * step


def round_step(span: float, most: int, whole: bool = False) -> float:
    """The smallest of 1, 2 or 5 times a power of ten of which at most `most` fill the span; at least 1 for whole."""
    power = math.floor(math.log10(span / most))
    step = next(digit * 10.0**power for digit in (1, 2, 5, 10) if span / (digit * 10.0**power) <= most * (1 + 1e-9))
    return max(step, 1.0) if whole else step


def histogram(title: str, unit: str, values: dict[str, np.ndarray], whole: bool = False, **more: Any) -> Histogram:
    """Series by label over edges that hold them all; a series without values stays, so that its absence shows."""
    finite = {label: column[np.isfinite(column)] for label, column in values.items()}
    there = [column for column in finite.values() if len(column)]
    low = min((float(column.min()) for column in there), default=0.0)
    high = max((float(column.max()) for column in there), default=1.0)
    edges = round_edges(low, high, whole)
    series = [
        Series(label, _counts(column, edges), float(np.median(column)) if len(column) else None)
        for label, column in finite.items()
    ]
    return Histogram(title, unit, edges.tolist(), series, whole, **more)


def _counts(values: np.ndarray, edges: np.ndarray) -> list[int]:
    """How many values every bin holds: int [bins]. Rounding of an edge never loses a value."""
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return np.bincount(bins, minlength=len(edges) - 1).tolist()


def measured(measure: Any) -> Histogram:
    """The histogram of one of a manifest's `measures`, with the threshold that its filter has."""
    thresholds = [
        Threshold(float(limit), f"{measure.reason}: {side} {limit:g}")
        for side, limit in (("below", measure.below), ("above", measure.above))
        if limit is not None
    ]
    kept, dropped = list(measure.kept_counts), list(measure.dropped_counts)
    edges = [float(edge) for edge in measure.edges]
    if edges[0] == edges[-1]:  # all traces measure the same
        edges = [edges[0] - 0.5, edges[0] + 0.5]
    return Histogram(
        title=measure.name,
        unit=measure.unit or "",
        edges=edges,
        series=[Series("kept", kept), Series("dropped", dropped)],
        open=True,
        thresholds=tuple(thresholds),
    )
