"""The figures in the README are those of the latest run of every benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.report import RESULTS
from tests.docs.conftest import PROJECT, README


def benchmarks() -> set[str]:
    line = next(line for line in (PROJECT / "Makefile").read_text().splitlines() if line.startswith("BENCHMARKS"))
    return set(line.partition("=")[2].split())


def test_every_benchmark_has_a_published_result() -> None:
    assert (
        {file.stem for file in RESULTS.glob("*.json")} == {file.stem for file in RESULTS.glob("*.md")} == benchmarks()
    )


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_the_readme_says_what_was_measured(file: Path) -> None:
    figures = json.loads(file.read_text(encoding="utf-8"))
    said = " ".join(README.split())
    assert figures["headline"] in said
    assert figures["machine"]["cpu"] in said
    assert figures["headline"] in file.with_suffix(".md").read_text(encoding="utf-8")
