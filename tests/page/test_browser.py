"""The page in a real browser: nothing is loaded, nothing runs that should not, and everything can be reached."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from distill_data.corpus.manifest import MeasureFacts
from distill_data.corpus.read import Corpus
from distill_data.page import write_page
from distill_data.page.gather import gather
from distill_data.page.render import page_html
from tests.page.browser import PHONE, Browser
from tests.page.conftest import HOSTILE, decode

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
OVERFLOW = "() => document.documentElement.scrollWidth - window.innerWidth"
INJECT = """() => {
  const script = document.createElement("script");
  script.textContent = "document.title = 'owned'";
  const box = document.createElement("div");
  box.innerHTML = "<img src='http://127.0.0.1:9/x' onerror='document.title = 1'>";
  document.body.append(script, box);
}"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and notes what is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a server of this folder, and the paths that it was asked for."""
    handler = type("Handler", (Quiet,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler.asked
        finally:
            server.shutdown()
            thread.join()


def test_it_renders_without_a_complaint_and_loads_nothing(page: Path, browser: Browser, corpus: Corpus) -> None:
    with browser.visit(page) as visit:
        assert visit.text("h1") == "sums@v1"
        assert visit.requests == [page.as_uri()]
        assert visit.console == []
        counts = visit.page.locator(".stage-count").all_inner_texts()
        assert counts[:2] == ["24", "144"] and counts[3] == str(corpus.manifest.counts["kept"])
        assert visit.page.locator("figure.chart").count() == 5
        assert visit.page.locator(".bars rect").count() > 50


def test_a_server_is_asked_for_the_page_alone(page: Path, browser: Browser) -> None:
    with served(page.parent) as (address, asked), browser.visit(f"{address}/{page.name}") as visit:
        visit.click("#next")
        assert visit.console == []
        assert asked == [f"/{page.name}"]


@pytest.mark.parametrize("decoded", [True, False])
def test_a_phone_scrolls_in_one_direction(
    decoded: bool, hostile_corpus: Corpus, browser: Browser, tmp_path: Path
) -> None:
    write_page(hostile_corpus, tmp_path / "page.html", decode if decoded else "no <tokenizer> here")
    with browser.visit(tmp_path / "page.html", PHONE) as visit:
        visit.ask("() => document.querySelectorAll('details').forEach((details) => { details.open = true; })")
        for _ in range(3):
            assert visit.ask(OVERFLOW) <= 0
            visit.click("#next")


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_stands_out_from_its_ground(dark: bool, page: Path, browser: Browser) -> None:
    with browser.visit(page, dark=dark) as visit:
        visit.page.locator(".tokens .token").nth(3).hover()
        found = visit.ask(CONTRAST, 4.5)
        assert found["seen"] > 400
        assert found["low"] == []
        visit.page.select_option("#by-reason", "failed_verifier")
        assert visit.ask(CONTRAST, 4.5)["low"] == []


def test_dark_mode_is_dark(page: Path, browser: Browser) -> None:
    grounds = []
    for dark in (False, True):
        with browser.visit(page, dark=dark) as visit:
            ground = visit.ask("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
            grounds.append(sum(ground))
    assert grounds[0] > 700 and grounds[1] < 100


def test_what_a_teacher_writes_does_not_run(hostile_corpus: Corpus, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(hostile_corpus, path, decode)
    with browser.visit(path) as visit:
        for _ in range(visit.ask("() => data.rows.length") - 1):
            visit.click("#next")
            assert visit.page.locator("main img, main script").count() == 0
        assert visit.page.title() == "sums@v1 · distill-data"
        assert visit.requests == [path.as_uri()] and visit.console == []
        visit.page.select_option("#by-reason", "kept")
        assert HOSTILE in visit.ask("() => document.querySelector('.turn:last-child .text').textContent")
        assert HOSTILE in visit.ask("() => document.querySelector('details .text').textContent")


def test_no_other_script_would_run(page: Path, browser: Browser) -> None:
    """The Content-Security-Policy holds where escaping would fail."""
    with browser.visit(page) as visit:
        visit.ask(INJECT)
        visit.page.wait_for_timeout(200)
        assert visit.page.title() == "sums@v1 · distill-data"
        assert any("Content Security Policy" in line for line in visit.console)


def test_without_a_tokenizer_the_text_is_plain_and_the_page_says_why(
    corpus: Corpus, browser: Browser, tmp_path: Path
) -> None:
    write_page(corpus, tmp_path / "page.html", "no <tokenizer> here")
    with browser.visit(tmp_path / "page.html") as visit:
        assert "into text: no <tokenizer> here." in visit.text("#traces .callout")
        assert visit.page.locator(".token").count() == 0
        assert "add 1 to it" in visit.text("#trace") and "Answer: " in visit.text("#trace")


def test_measures_have_their_threshold_in_the_chart(corpus: Corpus, browser: Browser, tmp_path: Path) -> None:
    facts = MeasureFacts(
        name="letters", unit="share", reason="too_few_letters", below=0.25, above=None,
        edges=[0.0, 0.5, 1.0], kept_counts=[0, 3], dropped_counts=[2, 1],
    )  # fmt: skip
    alike = facts.model_copy(update={"edges": [0.0, 0.0], "kept_counts": [3], "dropped_counts": [3]})
    nothing = facts.model_copy(update={"edges": [], "kept_counts": [], "dropped_counts": []})
    measured = Corpus(corpus.path, corpus.manifest.model_copy(update={"measures": [facts, alike, nothing]}))
    (tmp_path / "page.html").write_text(page_html(measured, gather(measured), "none here"), encoding="utf-8")
    with browser.visit(tmp_path / "page.html") as visit:
        assert "too_few_letters: below 0.25" in visit.text("#measures")
        plot = visit.page.locator("#measures .bars").first.bounding_box()
        line = visit.page.locator("#measures .bars line.threshold").first.bounding_box()
        assert plot and line
        assert line["x"] - plot["x"] == pytest.approx(plot["width"] / 4, abs=1.5)


def test_headings_and_labels_are_in_order(page: Path, browser: Browser) -> None:
    with browser.visit(page) as visit:
        levels = visit.ask(
            "() => [...document.querySelectorAll('h1,h2,h3,h4,h5')].map((one) => Number(one.tagName[1]))"
        )
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        named = "() => [...document.querySelectorAll('select')].every((one) => one.labels.length === 1)"
        assert visit.ask(named)


def test_it_prints_without_its_controls(page: Path, browser: Browser, tmp_path: Path) -> None:
    with browser.visit(page, dark=True) as visit:
        pdf = visit.page.pdf(path=tmp_path / "page.pdf", format="A4")
        assert pdf.startswith(b"%PDF")
        visit.page.emulate_media(media="print")
        assert visit.ask(CONTRAST, 4.5)["low"] == []  # on white, whatever the screen prefers
        assert not visit.page.is_visible(".controls")
        assert visit.page.is_visible("#trace")
