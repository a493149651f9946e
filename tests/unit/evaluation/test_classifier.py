"""How sure a classifier's accuracy is, and its difference to its teacher's, from counts of right texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill_data.errors import StudentError
from distill_data.evaluation.classifier import classifier_findings, write_classifier_findings
from distill_data.evaluation.statistics import mcnemar_p
from distill_data.report.student import classifier_summary
from distill_data.student.job import StudentReport
from distill_data.student.result import ClassifierResult
from distill_data.student_config import Student

# Of 20 texts with a right label both have 5 right, the student alone 2 and the teacher alone 9.
FOUND = ClassifierResult(24, 0, 20, 0.1, 0.5, 7 / 20, 0.7, 0.1, 14 / 20, 0.6, 0.1, 5, 2, 9)


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    """What a StudentPlan says of where things are."""
    corpus = SimpleNamespace(manifest=SimpleNamespace(digest="d"))
    student = Student.model_validate({"task": "classification", "model": "m"})
    return SimpleNamespace(
        corpus=corpus, student=student, folder=tmp_path, evaluation_file=tmp_path / "evaluation.json"
    )


def report(after: ClassifierResult) -> StudentReport:
    return StudentReport("reviews-v1", "s", "reviews@v1", False, 60, 1, 1, 0, 1, 1.0, 1.0, 9.0, 2.0, after, after)


def test_a_classifier_that_is_worse_than_its_teacher_says_how_surely(plan: Any) -> None:
    found = classifier_findings(plan, report(FOUND))
    assert found.accuracy is not None and found.teacher_accuracy is not None and found.difference is not None
    # Wilson's intervals of 7 and 14 of 20
    intervals = [(one.mean, one.low, one.high) for one in (found.accuracy, found.teacher_accuracy)]
    assert intervals[0] == pytest.approx((0.35, 0.1812, 0.5671), abs=5e-5)
    assert intervals[1] == pytest.approx((0.70, 0.4810, 0.8545), abs=5e-5)
    difference = found.difference.difference
    assert difference.mean == pytest.approx(-0.35) and difference.test == "McNemar, exact"
    assert difference.p == pytest.approx(mcnemar_p(2, 9)) and difference.high is not None and difference.high < 0
    saved = json.loads(write_classifier_findings(found).read_text())
    assert saved["difference"]["difference"]["mean"] == difference.mean
    assert saved["accuracy"]["low"] == found.accuracy.low and saved["student"]["after"]["only_teacher_right"] == 9
    told = classifier_summary(found)
    assert "accuracy 0.350 [0.181, 0.567], the teacher's 0.700 [0.481, 0.855]" in told
    assert (
        "student less teacher: accuracy -0.350 [" in told and "p 0.065 (McNemar, exact)" in told and found.path in told
    )


def test_without_right_labels_there_is_nothing_to_be_sure_of(plan: Any) -> None:
    none = ClassifierResult(24, 0, 0, 0.1, 0.5, both_right=0, only_student_right=0, only_teacher_right=0)
    found = classifier_findings(plan, report(none))
    assert (found.accuracy, found.teacher_accuracy, found.difference) == (None, None, None)
    assert "no held-out text has a right label" in classifier_summary(found)


def test_what_was_measured_before_this_was_counted_is_measured_again(plan: Any) -> None:
    with pytest.raises(StudentError, match=r"evaluation.json does not say which texts .* remove it, and run"):
        classifier_findings(plan, report(replace(FOUND, both_right=None)))
