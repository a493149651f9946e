"""The page of an evaluation: dots with their intervals, and the table, in one file that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from distill_data.comparison.curves import Interval
from distill_data.evaluation.findings import Evaluation, ModelFigures
from distill_data.evaluation.table import Row, difference, heading, rows, spread
from distill_data.page.charts import Mark, number
from distill_data.page.histogram import round_step
from distill_data.page.render import style
from distill_data.parquet import place
from distill_data.templates import templates

_TICKS = 5


@dataclass(frozen=True)
class Dot:
    """A model's figure: where the dot and its interval are, in percent of the width."""

    name: str
    role: str
    at: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One figure of every model that has it, over one axis."""

    title: str
    dots: list[Dot]
    ticks: list[Mark]


@dataclass(frozen=True)
class Page:
    """What stands on it: a column of the table and a dot of every panel for each model; differences a line each."""

    student: str
    heading: str
    panels: list[Panel]
    models: list[str]
    rows: list[Row]
    differences: list[str]
    notes: list[str]


def write_evaluation_page(found: Evaluation) -> Path:
    """Write the page of a student that answers beside its JSON file, whole or not at all."""
    return write_page(
        Path(found.page),
        Page(
            student=found.student.name,
            heading=heading(found),
            panels=panels(found.models),
            models=[model.name for model in found.models],
            rows=rows(found),
            differences=[f"less {pair.other}: {difference(pair)}" for pair in found.differences],
            notes=found.notes,
        ),
    )


def write_page(file: Path, page: Page) -> Path:
    """Write a page to `file`, whole or not at all."""
    environment = templates(Path(__file__).parent, escape=True)
    text = environment.get_template("page.html.jinja").render(page=page, style=Markup(style()))
    place(text.encode("utf-8"), file)
    return file


def panels(models: list[ModelFigures]) -> list[Panel]:
    """pass@k of all models over one axis from 0 to 1 each, and their NLL."""
    ks = sorted({k for model in models for k in model.pass_at})
    figures: list[tuple[str, Callable[[ModelFigures], Interval | None]]] = [
        *((f"pass@{k}", lambda model, k=k: model.pass_at.get(k)) for k in ks),
        ("NLL of the teacher's held-out traces, nats per token: lower is better", lambda model: model.cross_entropy),
    ]
    drawn = [(title, [(model.name, model.role, of(model)) for model in models]) for title, of in figures]
    return [found for title, of in drawn if (found := panel(title, of, 1.0 if title.startswith("pass@") else None))]


def panel(title: str, figures: list[tuple[str, str, Interval | None]], top: float | None) -> Panel | None:
    """Where every dot is on an axis from 0 to `top`, or to the end of the farthest interval; None where nobody has one.

    Args:
        title: what the figure is.
        figures: name and role of a model, and its figure, if it has one.
        top: of the axis.
    """
    values = [(name, role, value) for name, role, value in figures if value is not None]
    if not values:
        return None
    highest = max(max(value.mean, value.high or 0.0) for *_, value in values)
    step = round_step(top or highest or 1.0, _TICKS, whole=False)
    right = top or step * math.ceil((highest or 1.0) / step)

    def percent(value: float) -> float:
        return 100.0 * min(max(value / right, 0.0), 1.0)

    dots = [
        Dot(
            name=name,
            role=role,
            at=percent(value.mean),
            low=percent(value.mean if value.low is None else value.low),
            high=percent(value.mean if value.high is None else value.high),
            text=spread(value),
        )
        for name, role, value in values
    ]
    ticks = [Mark(percent(step * place), number(step * place)) for place in range(math.floor(right / step + 1e-9) + 1)]
    return Panel(title, dots, ticks)
