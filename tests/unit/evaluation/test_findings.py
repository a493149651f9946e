"""Which way differences point: a student that answers otherwise than its teacher, and a baseline that is better."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distill_data.evaluation.answers import Answers
from distill_data.evaluation.cost import Cost
from distill_data.evaluation.entrants import Role
from distill_data.evaluation.findings import Evaluation, Measured, findings, write_findings
from distill_data.evaluation.held_out import Likelihood
from distill_data.evaluation.page import write_evaluation_page
from distill_data.evaluation.table import evaluation_summary, rows
from distill_data.student.job import StudentReport
from distill_data.student_config import Student

# Of two answers to each of four prompts; tokens of the held-out traces, and nats of them.
TEACHER, STUDENT, BASELINE = ([2, 2, 1, 1], [1, 0, 0, 1], [2, 2, 2, 2])
TOKENS = np.array([10, 10, 10, 10])
NATS = {"teacher": 1.0, "student": 3.0, "other": 2.5}  # a token


def measured(name: str, role: Role, right: list[int]) -> Measured:
    entrant: Any = SimpleNamespace(name=name, role=role, reference="m")
    passed = np.array([[True] * count + [False] * (2 - count) for count in right])
    nats = NATS[name] * TOKENS + np.array([-1.0, 0.5, 1.0, -0.5])  # the mean stays
    likelihood = Likelihood(4, TOKENS, nats, None, None, None)
    return Measured(entrant, Answers(passed, 8.0, 0.0, 0.0), likelihood, Cost(1, 4, "float32"), {})


@pytest.fixture
def found(tmp_path: Path) -> Evaluation:
    plan: Any = SimpleNamespace(
        corpus=SimpleNamespace(manifest=SimpleNamespace(digest="d")),
        student=Student.model_validate({"model": "m", "evaluate": {"samples": 2}}),
        folder=tmp_path,
    )
    report = StudentReport("sums-v1", "s", "sums@v1", False, 60, 1, 1, 0, 1, 1.0, 1.0, 9.0, 2.0, None, None)
    entrants = [
        measured("teacher", "teacher", TEACHER),
        measured("student", "student", STUDENT),
        measured("other", "baseline", BASELINE),
    ]
    return findings(plan, report, entrants, [])


EXPECTED = {
    ("teacher", "pass@1"): 0.25 - 0.75,
    ("teacher", "pass@2"): 0.5 - 1.0,
    ("teacher", "NLL"): 2.0,
    ("other", "pass@1"): 0.25 - 1.0,
    ("other", "pass@2"): 0.5 - 1.0,
    ("other", "NLL"): 0.5,
}


def test_differences_are_the_students_less_the_others(found: Evaluation) -> None:
    means = {(pair.other, pair.figure): pair.difference.mean for pair in found.differences}
    assert means == pytest.approx(EXPECTED)
    by_name = {model.name: model for model in found.models}
    for (other, figure), mean in means.items():
        if figure != "NLL":
            k = int(figure.removeprefix("pass@"))
            assert mean == pytest.approx(by_name["student"].pass_at[k].mean - by_name[other].pass_at[k].mean)


def test_the_file_says_it_the_same_way(found: Evaluation) -> None:
    saved = json.loads(write_findings(found).read_text())
    said = {(pair["other"], pair["figure"]): pair["difference"]["mean"] for pair in saved["differences"]}
    assert said == pytest.approx(EXPECTED)
    assert [model["pass_at"]["1"]["mean"] for model in saved["models"]] == pytest.approx([0.75, 0.25, 1.0])


def test_table_and_sentence_say_it_the_same_way(found: Evaluation) -> None:
    first = rows(found)[0]
    assert first.name == "pass@1" and [cell[:5] for cell in first.cells] == ["0.750", "0.250", "1.000"]
    summary = evaluation_summary(found)
    beside_teacher, beside_other = summary.split("student less teacher")[1].split("student less other")
    assert "pass@1 -0.500 [" in beside_teacher and "NLL +2.000" in beside_teacher
    assert "pass@1 -0.750 [" in beside_other and "NLL +0.500" in beside_other
    page = write_evaluation_page(found).read_text()
    assert "<li>less teacher: pass@1 -0.500 [" in page and "<li>less other: NLL +0.500" in page
