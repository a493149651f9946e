"""comparison.html: the curves of a comparison and its table, in one page that loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from distill_data.compare_config import Arm
from distill_data.comparison.curves import Curve, Interval, Saving
from distill_data.comparison.findings import FIGURES, ArmFigures, Comparison
from distill_data.page.charts import Mark, number
from distill_data.page.histogram import round_step
from distill_data.page.render import style
from distill_data.parquet import place
from distill_data.templates import templates

PAGE_NAME = "comparison.html"
ARM_NAMES: dict[Arm, str] = {
    "soft_labels": "the teacher's distributions",
    "text": "the teacher's text",
    "reference": "references, no teacher",
}
_HEIGHT = 240.0
_TICKS = 5


@dataclass(frozen=True)
class Line:
    """One training's curve: points as SVG takes them, in percent of the width and of _HEIGHT."""

    arm: Arm
    points: str
    title: str


@dataclass(frozen=True)
class Chart:
    """Curves of all arms under one figure."""

    title: str
    lines: list[Line]
    x_ticks: list[Mark]
    y_ticks: list[Mark]


def write_comparison_page(found: Comparison) -> Path:
    """Write the page into the comparison's folder, whole or not at all."""
    template = templates(Path(__file__).parent, escape=True).get_template("page.html.jinja")
    text = template.render(
        found=found,
        charts=[chart(FIGURES[name], arms) for name, arms in found.figures.items()],
        figures=FIGURES,
        arm_names=ARM_NAMES,
        spread=spread,
        saved=saved,
        height=_HEIGHT,
        style=Markup(style()),
    )
    file = Path(found.path) / PAGE_NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    place(text.encode("utf-8"), file)
    return file


def chart(title: str, arms: list[ArmFigures]) -> Chart:
    """Where every curve runs: tokens from 0 to the most that a training saw, values from the lowest to the highest."""
    curves = [curve for arm in arms for curve in arm.curves]
    right = max(curve.tokens[-1] for curve in curves)
    low, high = min(min(curve.values) for curve in curves), max(max(curve.values) for curve in curves)
    high = high if high > low else low + 1.0
    lines = [
        Line(arm.arm, _points(curve, right, low, high), f"{ARM_NAMES[arm.arm]}, run {number_of + 1}: {curve.final:.3f}")
        for arm in arms
        for number_of, curve in enumerate(arm.curves)
    ]
    x_ticks = [Mark(100.0 * value / right, number(value)) for value in _round_values(0.0, right)]
    y_ticks = [Mark(_HEIGHT * (high - value) / (high - low), number(value)) for value in _round_values(low, high)]
    return Chart(title, lines, x_ticks, y_ticks)


def spread(value: Interval) -> str:
    """An estimate and its interval."""
    if value.low is None or value.high is None:
        return f"{value.mean:.3f} (one seed)"
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def saved(value: Saving | None) -> str:
    """How many times fewer tokens, in words."""
    if value is None:
        return ""
    if not value.seeds:
        return "ended no lower than it began"
    if value.factor is None:
        return f"soft labels never reach it ({value.seeds} of {value.seeds} seeds)"
    text = f"soft labels reach it in {value.factor.mean:.2f} times fewer tokens"
    if value.factor.low is not None and value.factor.high is not None:
        text += f" [{value.factor.low:.2f}, {value.factor.high:.2f}]"
    return text if value.reached == value.seeds else f"{text}, but only in {value.reached} of {value.seeds} seeds"


def _points(curve: Curve, right: int, low: float, high: float) -> str:
    return " ".join(
        f"{100.0 * tokens / right:.3f},{_HEIGHT * (high - value) / (high - low):.2f}"
        for tokens, value in zip(curve.tokens, curve.values, strict=True)
    )


def _round_values(low: float, high: float) -> list[float]:
    step = round_step(high - low, _TICKS, whole=False)
    first = -(-low // step)
    values = []
    while first * step <= high * (1 + 1e-12):
        values.append(first * step)
        first += 1
    return values
