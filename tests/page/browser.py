"""A headless Chromium that notes everything that a page asks for or complains about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = (1280, 900)
PHONE = (360, 740)


@dataclass
class Visit:
    """An open page, what it asked for beside itself, and what stood on its console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def click(self, selector: str) -> None:
        self.page.click(selector)

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def ask(self, script: str, argument: Any = None) -> Any:
        """What a function returns inside the page."""
        return self.page.evaluate(script, argument)


@dataclass
class Browser:
    """A running browser; its profile is new and thrown away."""

    chromium: Chromium

    @staticmethod
    @contextmanager
    def started(executable: str) -> Iterator[Browser]:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=executable, args=FLAGS)
            yield Browser(chromium)
            chromium.close()

    @contextmanager
    def visit(self, page: Path | str, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Iterator[Visit]:
        """Open a file or an address and wait until nothing is loading."""
        address = page.as_uri() if isinstance(page, Path) else page
        context = self.chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light"
        )
        opened = Visit(context.new_page())
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("console", lambda message: opened.console.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.console.append(f"error: {error}"))
        opened.page.goto(address, wait_until="networkidle")
        opened.page.wait_for_load_state("load")  # on a busy machine the network is idle before scripts have run
        yield opened
        context.close()
