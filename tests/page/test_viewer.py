"""The viewer of example traces in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill_data.corpus.read import Corpus
from distill_data.page.examples import ALTERNATIVES as SHOWN
from tests.page.browser import DESKTOP, PHONE, Browser, Visit

ALTERNATIVES = """() => [...document.querySelectorAll(".alternatives tbody tr")]
  .map((row) => [row.dataset.id ?? null, row.dataset.p, row.innerText])"""


def row_id(visit: Visit) -> str:
    return visit.text("#trace h3")


def test_the_viewer_pages_by_click_and_by_key(page: Path, browser: Browser) -> None:
    with browser.visit(page) as visit:
        total = visit.ask("() => data.rows.length")
        first = row_id(visit)
        assert visit.text("#position") == f"1 of {total}"
        visit.click("#next")
        second = row_id(visit)
        assert second != first and visit.text("#position") == f"2 of {total}"
        visit.page.keyboard.press("ArrowRight")
        assert visit.text("#position") == f"3 of {total}"
        visit.page.keyboard.press("ArrowLeft")
        visit.page.keyboard.press("ArrowLeft")
        assert row_id(visit) == first
        visit.page.keyboard.press("ArrowLeft")
        assert row_id(visit) == first and visit.page.get_attribute("#previous", "aria-disabled") == "true"
        visit.page.focus("#previous")
        visit.page.keyboard.press("Tab")
        visit.page.keyboard.press("Enter")
        assert row_id(visit) == second


def test_filters_narrow_the_rows(page: Path, browser: Browser, corpus: Corpus) -> None:
    with browser.visit(page) as visit:
        visit.page.select_option("#by-reason", "truncated")
        assert visit.text("#position") == f"1 of {min(12, corpus.manifest.dropped['truncated'])}"
        assert "truncated" in visit.text("#trace .badges")
        visit.page.select_option("#by-source", "algebra")
        assert "algebra" in visit.text("#trace .facts")
        visit.page.select_option("#by-verdict", "passed")
        assert visit.text("#position") == "none"
        visit.click("a[data-reason=prompt_too_long]")
        assert visit.text("#position") == "1 of 1"
        assert "700 tokens, the context holds 512" in visit.text("#trace")


def expected_alternatives(corpus: Corpus, trace_id: str, place: int) -> tuple[dict[int, float], float]:
    """What the corpus says of one token: {id: probability} and the tail."""
    for split in corpus.splits:
        for row in corpus.table("soft_labels", split).to_pylist():
            if row["trace_id"] == trace_id:
                ends = np.cumsum(row["support_counts"])
                kept = slice(ends[place] - row["support_counts"][place], ends[place])
                p = np.exp(np.array(row["support_logprobs"][kept], float))
                return dict(zip(row["support_ids"][kept], p, strict=True)), max(0.0, 1.0 - p.sum())
    raise AssertionError(trace_id)


def shown_alternatives(visit: Visit) -> tuple[dict[int, float], float]:
    rows = visit.ask(ALTERNATIVES)
    listed = {int(number): float(p) for number, p, text in rows if number and "counted above" not in text}
    return listed, next(float(p) for _, p, text in rows if text.startswith("tail"))


@pytest.mark.parametrize("how", ["hover", "tap", "keys"])
def test_a_token_shows_the_teachers_alternatives(how: str, page: Path, browser: Browser, corpus: Corpus) -> None:
    with browser.visit(page, PHONE if how == "tap" else DESKTOP) as visit:
        token = visit.page.locator(".tokens .token").nth(5)
        if how == "hover":
            token.hover()
        elif how == "tap":
            token.click()
        else:
            visit.page.locator(".tokens .token").first.focus()
            for _ in range(5):
                visit.page.keyboard.press("ArrowRight")
        listed, tail = shown_alternatives(visit)
        kept, expected_tail = expected_alternatives(corpus, row_id(visit), 5)
        assert list(listed) == list(kept)[:SHOWN]
        assert list(listed.values()) == pytest.approx([kept[number] for number in listed], rel=1e-3)
        assert tail == pytest.approx(expected_tail, abs=1e-4)
        assert "token 6 of" in visit.text(".chosen")
        assert visit.text("#position").startswith("1 of")
