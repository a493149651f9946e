"""The page of a classifier's evaluation: accuracy, log loss, calibration and KL, the student's beside its teacher's."""

from __future__ import annotations

from pathlib import Path

from distill_data.comparison.curves import Interval
from distill_data.evaluation.classifier import NO_RIGHT_LABELS, ClassifierEvaluation
from distill_data.evaluation.page import Page, Panel, panel, write_page
from distill_data.evaluation.table import Row, difference, spread
from distill_data.student.result import ClassifierResult

_Figure = tuple[str, Interval | None, Interval | None, float | None]  # title, teacher's, student's, end of the axis


def write_classifier_page(found: ClassifierEvaluation) -> Path:
    """Write the page beside the JSON file, whole or not at all."""
    student, after = found.student, found.student.after
    assert isinstance(after, ClassifierResult)
    shown = _figures(found, after)
    judged = f"{after.judged:,} of {after.traces:,} held-out texts with a right label"
    return write_page(
        Path(found.page),
        Page(
            student=student.name,
            heading=f"{student.name} on {student.corpus}: {judged}",
            panels=[one for figure in shown if (one := _panel(figure)) is not None],
            models=["teacher", "student"],
            rows=[Row(title, [spread(teachers), spread(ours)]) for title, teachers, ours, _ in shown],
            differences=[] if found.difference is None else [f"less teacher: {difference(found.difference)}"],
            notes=[NO_RIGHT_LABELS] if found.difference is None else [],
        ),
    )


def _figures(found: ClassifierEvaluation, after: ClassifierResult) -> list[_Figure]:
    teachers_error, error = after.teacher_calibration_error, after.calibration_error
    figures: list[_Figure] = [
        ("accuracy", found.teacher_accuracy, found.accuracy, 1.0),
        ("log loss, nats: lower is better", _bare(after.teacher_log_loss), _bare(after.log_loss), None),
        ("calibration error: lower is better", _bare(teachers_error), _bare(error), None),
        ("agreement with the teacher's likeliest label", None, _bare(after.agreement), 1.0),
        ("KL to the teacher, nats: lower is better", None, _bare(after.kl), None),
    ]
    return [figure for figure in figures if figure[2] is not None]


def _panel(figure: _Figure) -> Panel | None:
    title, teachers, ours, top = figure
    return panel(title, [("teacher", "teacher", teachers), ("student", "student", ours)], top)


def _bare(value: float | None) -> Interval | None:
    """A figure that has no interval."""
    return None if value is None else Interval(value, None, None)
