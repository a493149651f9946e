"""Geometry of the chart of pass@k; see `charts` for its units. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from distill_data.page.charts import Mark
from distill_data.page.rates import Rate, Rates

CURVES_HEIGHT = 220.0
CURVES_SHOWN = 5
_LABEL_GAP = 17.0  # pixels between the labels of two curves


@dataclass(frozen=True)
class Curve:
    """Pass@k of one group; `points` are (x, y, text)."""

    label: str
    end: str
    tone: int
    points: list[tuple[float, float, str]]
    label_y: float


@dataclass(frozen=True)
class CurveChart:
    """Pass@k over k."""

    curves: list[Curve]
    x_ticks: list[Mark]
    y_ticks: list[Mark]


def curve_chart(found: Rates) -> CurveChart:
    """Pass@k of all prompts and, where there are several sources, of the largest of them."""
    groups = [found.overall, *(found.by_source[:CURVES_SHOWN] if len(found.by_source) > 1 else [])]
    ends = [_points(group, found.ks)[-1][1] for group in groups]
    return CurveChart(
        curves=[
            Curve(group.label, _end(group), tone, _points(group, found.ks), label_y)
            for tone, (group, label_y) in enumerate(zip(groups, _apart(ends), strict=True))
        ],
        x_ticks=[Mark(_x(place, found.ks), str(k)) for place, k in enumerate(found.ks)],
        y_ticks=[Mark(CURVES_HEIGHT * (1 - share / 100), f"{share}%") for share in (0, 25, 50, 75, 100)],
    )


def _points(group: Rate, ks: list[int]) -> list[tuple[float, float, str]]:
    """A point for every k that some prompt of the group has samples for; k = 1 is always there."""
    return [
        (_x(place, ks), CURVES_HEIGHT * (1 - value), f"{group.label}: pass@{k} {value:.1%} of {prompts:,} prompts")
        for place, (k, value, prompts) in enumerate(zip(ks, group.at_k, group.at_k_prompts, strict=True))
        if value is not None
    ]


def _end(group: Rate) -> str:
    """What the curve ends at."""
    return f"{next(value for value in reversed(group.at_k) if value is not None):.1%}"


def _x(place: int, ks: list[int]) -> float:
    return 100.0 * place / (len(ks) - 1) if len(ks) > 1 else 50.0


def _apart(ends: list[float]) -> list[float]:
    """Heights of labels near these ends of curves, at least _LABEL_GAP apart and inside the chart."""
    order = sorted(range(len(ends)), key=lambda place: ends[place])
    placed = list(ends)
    for before, place in pairwise(order):
        placed[place] = max(placed[place], placed[before] + _LABEL_GAP)
    limit = CURVES_HEIGHT
    for place in reversed(order):
        placed[place] = min(placed[place], limit)
        limit = placed[place] - _LABEL_GAP
    return placed
