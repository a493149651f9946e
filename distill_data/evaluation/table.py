"""The table of an evaluation as text: a row a figure, a column a model. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from distill_data.comparison.curves import Interval
from distill_data.evaluation.findings import Evaluation, ModelFigures, Paired
from distill_data.teachers.speed import Speed


@dataclass(frozen=True)
class Row:
    """One figure of every model, as text; empty where a model has none."""

    name: str
    cells: list[str]


def rows(found: Evaluation) -> list[Row]:
    """Every figure that some model has."""
    models = found.models
    ks = sorted({k for model in models for k in model.pass_at})
    tasks = sorted({(task, metric) for model in models for task, metrics in model.tasks.items() for metric in metrics})
    figures: list[tuple[str, Callable[[ModelFigures], str]]] = [
        *((f"pass@{k}", lambda model, k=k: spread(model.pass_at.get(k))) for k in ks),
        ("tokens an answer", lambda model: _number(model.mean_tokens, "{:,.1f}")),
        ("cut", lambda model: _number(model.cut, "{:.1%}")),
        ("no verdict", lambda model: _number(model.failed or None, "{:.1%}")),
        ("NLL, nats a token", lambda model: spread(model.cross_entropy)),
        ("KL to the teacher", lambda model: "0" if model.role == "teacher" and model.kl else spread(model.kl)),
        ("top-1 agreement", lambda model: _number(model.top1_agreement, "{:.1%}")),
        ("calibration error", lambda model: _number(model.calibration_error, "{:.3f}")),
        *((f"{task} {metric}", partial(_of_task, task, metric)) for task, metric in tasks),
        ("parameters", lambda model: f"{model.cost.parameters:,}"),
        ("weights on disk", lambda model: f"{model.cost.bytes / 1e6:,.1f} MB"),
        ("answers in", lambda model: model.cost.dtype),
        ("tokens/s", lambda model: "" if (speed := model.cost.speed) is None else f"{speed.tokens_per_second:,.0f}"),
        ("engine's memory", lambda model: "" if (speed := model.cost.speed) is None else _gigabytes(speed)),
    ]
    found_rows = [Row(name, [of(model) for model in models]) for name, of in figures]
    return [row for row in found_rows if any(row.cells)]


def spread(value: Interval | None) -> str:
    """An estimate and its interval."""
    if value is None:
        return ""
    if value.low is None or value.high is None:
        return f"{value.mean:.3f}"
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def difference(pair: Paired) -> str:
    """The student's figure less another's, in words."""
    found = pair.difference
    interval = "" if found.low is None or found.high is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{pair.figure} {found.mean:+.3f}{interval}, p {_p(found.p)} ({found.test})"


def heading(found: Evaluation) -> str:
    """What was looked at."""
    looked = []
    if found.prompts:
        each = "" if found.samples == 1 else f", {found.samples} samples of each"
        looked.append(f"{found.prompts:,} held-out prompts{each}")
    if found.held_out_traces:
        looked.append(f"{found.held_out_traces:,} held-out traces of {found.held_out_tokens:,} tokens")
    return f"{found.student.name} on {found.student.corpus}: {'; '.join(looked) or 'nothing held out fits'}"


def evaluation_summary(found: Evaluation) -> str:
    """The table, the differences, and where all of it is."""
    table = [["", *(model.name for model in found.models)], *([row.name, *row.cells] for row in rows(found))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [heading(found), ""]
    lines += ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
    others = dict.fromkeys(pair.other for pair in found.differences)
    for other in others:
        lines += ["", f"  student less {other}"]
        lines += [f"    {difference(pair)}" for pair in found.differences if pair.other == other]
    lines += ["", *(f"  note        {note}" for note in found.notes)]
    return "\n".join([*lines, f"  page        {found.page}", f"  figures     {found.path}"])


def _of_task(task: str, metric: str, model: ModelFigures) -> str:
    return _number(model.tasks.get(task, {}).get(metric), "{:.3f}")


def _gigabytes(speed: Speed) -> str:
    return f"{speed.peak_memory_bytes / 1e9:.2f} GB"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
