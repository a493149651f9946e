"""The page of a comparison in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_data.comparison.curves import Curve, interval, saving
from distill_data.comparison.findings import ArmFigures, Comparison
from distill_data.comparison.page import write_comparison_page
from tests.page.browser import DESKTOP, PHONE, Browser


@pytest.fixture
def comparison_page(tmp_path: Path) -> Path:
    tokens = [0, 1000, 2000, 3000]
    ours = [Curve(tokens, [9.0, 4.0 + seed / 10, 2.0, 1.5]) for seed in range(3)]
    text = [Curve(tokens, [9.0, 6.0, 4.0 - seed / 10, 3.0]) for seed in range(3)]
    arms = [
        ArmFigures("soft_labels", ours, interval([curve.final for curve in ours]), None),
        ArmFigures("text", text, interval([curve.final for curve in text]), saving(ours, text)),
    ]
    figures = {"teacher_cross_entropy": arms, "teacher_kl": arms}
    tokens_seen = {"soft_labels": 3000, "text": 3000}
    found = Comparison("sums@v1", str(tmp_path), 8_000_000, [0, 1, 2], 60.0, tokens_seen, figures)
    return write_comparison_page(found)


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_it_shows_curves_and_loads_nothing(
    browser: Browser, comparison_page: Path, size: tuple[int, int], dark: bool
) -> None:
    with browser.visit(comparison_page, size, dark) as visit:
        assert visit.console == []
        assert visit.requests == [comparison_page.as_uri()]
        boxes = visit.ask(
            "() => [...document.querySelectorAll('polyline')].map(line => line.getBoundingClientRect().toJSON())"
        )
        assert len(boxes) == 12
        assert all(box["width"] > 100 and box["height"] > 50 for box in boxes)
        assert visit.ask("() => document.documentElement.scrollWidth <= window.innerWidth")
        assert "soft labels reach it in" in visit.text("table")
