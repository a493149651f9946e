"""A version's report.html, where it cannot be drawn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distill_data import build
from distill_data.errors import CorpusError


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(build, "load_tokenizer", lambda source, **_: None)
    teacher = SimpleNamespace(trust_remote_code=False)
    return SimpleNamespace(config=SimpleNamespace(teacher=teacher), identity=SimpleNamespace(source=None))


def failing(error: Exception) -> Any:
    def write_page(*_: Any) -> None:
        raise error

    return write_page


def test_it_says_so_in_its_place_and_costs_no_version(
    plan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "write_page", failing(ValueError("no <edges>")))
    build._write_report(plan, tmp_path, SimpleNamespace())  # type: ignore[arg-type]
    said = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "could not be drawn (ValueError: no &lt;edges&gt;). The version is whole." in said


def test_a_damaged_version_is_still_an_error(plan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "write_page", failing(CorpusError("a file is damaged: restore it")))
    with pytest.raises(CorpusError, match="restore it"):
        build._write_report(plan, tmp_path, SimpleNamespace())  # type: ignore[arg-type]
