"""The figures in the README are those of the latest run of every benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from distill_data.comparison.findings import Comparison
from distill_data.report.comparison import comparison_summary
from distill_data.rounds import RoundResult, RoundsReport, rounds_summary
from distill_data.student.result import EvaluationResult
from tests.benchmarks.report import RESULTS
from tests.docs.conftest import PROJECT, README


def benchmarks() -> set[str]:
    line = next(line for line in (PROJECT / "Makefile").read_text().splitlines() if line.startswith("BENCHMARKS"))
    return set(line.partition("=")[2].split())


def runs() -> set[str]:
    """Results that are what a run of the config of that name wrote."""
    return {file.stem for file in (PROJECT / "configs").glob("*.yaml")} & {file.stem for file in RESULTS.glob("*.json")}


def test_every_benchmark_has_a_published_result() -> None:
    there = {file.stem for file in RESULTS.glob("*.json")}
    assert there == {file.stem for file in RESULTS.glob("*.md")} == benchmarks() | runs()


def test_the_readme_shows_the_rounds_that_were_run() -> None:
    saved = json.loads((RESULTS / "rounds_smollm2.json").read_text(encoding="utf-8"))
    results = tuple(RoundResult(**one | {"held_out": EvaluationResult(**one["held_out"])}) for one in saved["rounds"])
    report = RoundsReport(saved["corpus"], "data", EvaluationResult(**saved["begun"]), results, 0, 0, None)
    *shown, folder = rounds_summary(report).splitlines()
    assert "rounds.json" in folder and len(shown) == 6
    assert "\n".join(shown) in README


def test_the_readme_shows_the_comparison_that_was_run() -> None:
    saved = json.loads((RESULTS / "compare_smollm2.json").read_text(encoding="utf-8"))
    *shown, page, figures = comparison_summary(
        TypeAdapter(Comparison).validate_python(saved["comparison"])
    ).splitlines()
    assert "comparison.html" in page and "comparison.json" in figures and len(shown) == 15
    assert "\n".join(shown) in README


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_the_readme_says_what_was_measured(file: Path) -> None:
    figures = json.loads(file.read_text(encoding="utf-8"))
    said = " ".join(README.split())
    assert figures["headline"] in said
    assert figures["machine"]["cpu"] in said
    assert figures["headline"] in file.with_suffix(".md").read_text(encoding="utf-8")
