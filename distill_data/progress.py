"""What a person sees while a job runs: one live display on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_SECONDS = 10.0  # between plain lines of one stage


class Display(Protocol):
    """Shows stages as they go."""

    def update(self, stage: str, done: int, total: int, figures: str = "") -> None:
        """A stage has done this much; `figures` is free text such as `231 tok/s`."""
        ...

    def note(self, text: str) -> None:
        """One line worth keeping."""
        ...


class SilentDisplay:
    """Shows nothing; the default for Python callers."""

    def update(self, stage: str, done: int, total: int, figures: str = "") -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


class PlainDisplay:
    """A line when a stage starts, every few seconds, and when it is done."""

    def __init__(self) -> None:
        self._printed_at: dict[str, float] = {}
        self._finished: set[str] = set()

    def update(self, stage: str, done: int, total: int, figures: str = "") -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        finished = done >= total
        if (finished and stage in self._finished) or (
            not finished and now - self._printed_at.get(stage, -PLAIN_SECONDS) < PLAIN_SECONDS
        ):
            return
        self._printed_at[stage] = now
        if finished:
            self._finished.add(stage)
        self.note(f"{stage}: {done:,}/{total:,}" + (f"  {figures}" if figures else ""))

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)


class LiveDisplay:
    """One bar per stage, redrawn in place."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def update(self, stage: str, done: int, total: int, figures: str = "") -> None:
        """Move the stage's bar."""
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, figures="")
        self._progress.update(self._bars[stage], completed=done, total=total, figures=figures)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, highlight=False, markup=False)


_current: Display = SilentDisplay()


def display() -> Display:
    """The display in use."""
    return _current


@contextmanager
def shown_on_stderr() -> Iterator[Display]:
    """Use a live display while stderr is a terminal, plain lines otherwise."""
    global _current
    before = _current
    console = Console(stderr=True)
    try:
        if not console.is_terminal:
            _current = PlainDisplay()
            yield _current
            return
        columns = [
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
        ]
        with Progress(*columns, console=console) as progress:
            _current = LiveDisplay(progress)
            yield _current
    finally:
        _current = before
