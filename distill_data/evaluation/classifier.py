"""A classifier beside its teacher on the same texts: how sure their accuracies are, and the difference of the two."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from distill_data.comparison.curves import Interval
from distill_data.errors import StudentError
from distill_data.evaluation.findings import Paired, findings_file
from distill_data.evaluation.statistics import paired_shares, share_interval
from distill_data.parquet import place
from distill_data.student.job import StudentPlan, StudentReport
from distill_data.student.result import ClassifierResult

NO_RIGHT_LABELS = "no held-out text has a right label: give the sources a reference: column"


@dataclass(frozen=True)
class ClassifierEvaluation:
    """What `evaluate` found of a classifier; the file `path` holds the same, and `page` shows it.

    Accuracies are of the student and of the teacher's likeliest label, with Wilson's 95 % intervals; `difference` is
    the student's less the teacher's, tested by McNemar's exact test. All None where no held-out text has a right label.
    """

    student: StudentReport
    path: str
    page: str
    accuracy: Interval | None
    teacher_accuracy: Interval | None
    difference: Paired | None


def classifier_findings(plan: StudentPlan, student: StudentReport) -> ClassifierEvaluation:
    """Intervals and the paired test, from what was counted on the held-out texts.

    Raises:
        StudentError: an older version measured it, and did not count this.
    """
    file, found = findings_file(plan), student.after
    places = str(file), str(file.with_suffix(".html"))
    assert isinstance(found, ClassifierResult)
    if not found.judged:
        return ClassifierEvaluation(student, *places, None, None, None)
    ours, teachers = _right(plan, found)
    difference = Paired("teacher", "accuracy", paired_shares(ours, teachers, samples=1))
    return ClassifierEvaluation(student, *places, share_interval(ours), share_interval(teachers), difference)


def write_classifier_findings(found: ClassifierEvaluation) -> Path:
    """The JSON file in the student's folder."""
    file = Path(found.path)
    place((json.dumps(asdict(found), indent=2) + "\n").encode(), file)
    return file


def _right(plan: StudentPlan, found: ClassifierResult) -> tuple[np.ndarray, np.ndarray]:
    """Whether the student is right, and whether the teacher is, text by text in any order: float64 [judged] each."""
    both, student, teacher = found.both_right, found.only_student_right, found.only_teacher_right
    if both is None or student is None or teacher is None:
        raise StudentError(
            f"{plan.evaluation_file} does not say which texts student and teacher have right: remove it, and run "
            "`distill-data evaluate` again"
        )
    counts = [both, student, teacher, found.judged - both - student - teacher]
    return np.repeat([1.0, 1.0, 0.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts)
