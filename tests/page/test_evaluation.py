"""The page of an evaluation in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from distill_data.comparison.curves import Interval
from distill_data.evaluation.classifier import NO_RIGHT_LABELS, ClassifierEvaluation
from distill_data.evaluation.classifier_page import write_classifier_page
from distill_data.evaluation.cost import Cost
from distill_data.evaluation.entrants import Role
from distill_data.evaluation.findings import Evaluation, ModelFigures, Paired
from distill_data.evaluation.page import write_evaluation_page
from distill_data.evaluation.statistics import Difference
from distill_data.student.job import StudentReport
from distill_data.student.result import ClassifierResult
from distill_data.teachers.speed import Speed
from tests.page.browser import DESKTOP, PHONE, Browser


def model(name: str, role: Role, share: float, nll: float) -> ModelFigures:
    pass_at = {1: Interval(share, share / 2, min(1.0, share * 1.5)), 4: Interval(share * 1.2, share, share * 1.4)}
    return ModelFigures(
        name=name, role=role, model="m", cost=Cost(1_000_000, 4_000_000, "float32", Speed(500.0, 5.0, 10**9, "cpu")),
        pass_at=pass_at, mean_tokens=30.0, cut=0.1, failed=0.0, cross_entropy=Interval(nll, nll - 0.2, nll + 0.2),
        kl=Interval(nll, None, None), top1_agreement=0.5, calibration_error=0.04, tasks={"piqa": {"acc": 0.61}},
    )  # fmt: skip


@pytest.fixture
def evaluation_page(tmp_path: Path) -> Path:
    student = StudentReport("sums-v1-abc", "s", "sums@v1", False, 60, 1, 1, 0, 1, 1.0, 1.0, 9.0, 2.0, None, None)
    models = [model("teacher", "teacher", 0.5, 0.9), model("student", "student", 0.2, 3.9)]
    models.append(model("<b>a baseline with a long name</b>", "baseline", 0.6, 2.0))
    pair = Paired("teacher", "pass@1", Difference(-0.3, -0.5, -0.1, 0.0004, "sign flips"))
    page = str(tmp_path / "models.html")
    found = Evaluation(student, str(tmp_path / "models.json"), page, 20, 4, 18, 599, models, [pair], ["a note"])
    return write_evaluation_page(found)


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_it_shows_dots_in_their_intervals_and_loads_nothing(
    browser: Browser, evaluation_page: Path, size: tuple[int, int], dark: bool
) -> None:
    with browser.visit(evaluation_page, size, dark) as visit:
        assert visit.console == []
        assert visit.requests == [evaluation_page.as_uri()]
        places = visit.ask(
            "() => [...document.querySelectorAll('.track')].map(track => ['.whisker', '.dot'].map("
            "part => track.querySelector(part).getBoundingClientRect().toJSON()).concat("
            "track.getBoundingClientRect().toJSON()))"
        )
        assert len(places) == 9  # three models, three figures
        for whisker, dot, track in places:
            assert whisker["left"] <= dot["left"] + dot["width"] / 2 <= whisker["right"]
            assert track["width"] > 60 and track["left"] <= whisker["left"] < whisker["right"] <= track["right"] + 1
        assert visit.ask("() => document.documentElement.scrollWidth <= window.innerWidth")
        assert "<b>a baseline with a long name</b>" in visit.text("table")
        assert "less teacher: pass@1 -0.300 [-0.500, -0.100], p < 0.001 (sign flips)" in visit.text("ul")
        assert "0.610" in visit.text("table") and "a note" in visit.text("main")


def classifier_page(tmp_path: Path, after: ClassifierResult, *shares: Interval) -> Path:
    student = StudentReport(
        "reviews-v1-abc", "s", "reviews@v1", False, 60, 1, 1, 0, 1, 1.0, 1.0, 9.0, 2.0, after, after
    )
    found = ClassifierEvaluation(student, str(tmp_path / "m.json"), str(tmp_path / "m.html"), None, None, None)
    if shares:
        pair = Paired("teacher", "accuracy", Difference(-0.35, -0.6, -0.05, 0.065, "McNemar, exact"))
        found = replace(found, accuracy=shares[0], teacher_accuracy=shares[1], difference=pair)
    return write_classifier_page(found)


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_classifier_stands_beside_its_teacher(browser: Browser, tmp_path: Path, size: tuple[int, int]) -> None:
    after = ClassifierResult(24, 0, 20, 0.1, 0.5, 0.35, 0.7, 0.2, 0.7, 0.6, 0.1)
    page = classifier_page(tmp_path, after, Interval(0.35, 0.18, 0.57), Interval(0.7, 0.48, 0.85))
    with browser.visit(page, size, dark=False) as visit:
        assert visit.console == [] and visit.requests == [page.as_uri()]
        places = visit.ask(
            "() => [...document.querySelectorAll('.track')].map(track => ['.whisker', '.dot'].map("
            "part => track.querySelector(part).getBoundingClientRect().toJSON()).concat("
            "track.getBoundingClientRect().toJSON()))"
        )
        assert len(places) == 8  # of both accuracy, log loss, calibration; of the student agreement and KL
        at = [(dot["left"] + dot["width"] / 2 - track["left"]) / track["width"] for _, dot, track in places]
        assert at[:2] == pytest.approx([0.7, 0.35], abs=0.01)
        whiskers = [(whisker["left"] - track["left"], whisker["width"]) for whisker, _, track in places]
        widths = [track["width"] for *_, track in places]
        assert [width / whole for (_, width), whole in zip(whiskers, widths, strict=True)][:3] == pytest.approx(
            [0.37, 0.39, 0.0], abs=0.01
        )
        assert visit.ask("() => document.documentElement.scrollWidth <= window.innerWidth")
        assert "0.350 [0.180, 0.570]" in visit.text("table") and "20 of 24 held-out texts" in visit.text("main")
        assert "less teacher: accuracy -0.350 [-0.600, -0.050], p 0.065 (McNemar, exact)" in visit.text("ul")


def test_a_classifier_without_right_labels_has_only_what_its_teacher_says(browser: Browser, tmp_path: Path) -> None:
    with browser.visit(classifier_page(tmp_path, ClassifierResult(24, 0, 0, 0.1, 0.5)), DESKTOP, dark=False) as visit:
        assert visit.console == []
        assert "accuracy" not in visit.text("table") and "KL to the teacher" in visit.text("table")
        assert NO_RIGHT_LABELS in visit.text("main")
