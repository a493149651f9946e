from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from distill_data import progress
from distill_data.progress import LiveDisplay, PlainDisplay, display, shown_on_stderr


def test_plain_lines_come_at_the_start_every_few_seconds_and_once_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    plain = PlainDisplay()
    for second in range(25):
        clock[0] = float(second)
        plain.update("generate", second, 24, f"{second} tok/s")
    plain.update("generate", 24, 24, "24 tok/s")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "generate: 0/24  0 tok/s",
        "generate: 10/24  10 tok/s",
        "generate: 20/24  20 tok/s",
        "generate: 24/24  24 tok/s",
    ]


def test_a_terminal_gets_one_bar_per_stage_with_its_figures() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    columns = [TextColumn("{task.description}"), TextColumn("{task.completed}/{task.total} {task.fields[figures]}")]
    with Progress(*columns, console=console) as bars:
        live = LiveDisplay(bars)
        live.update("generate", 3, 10, "120 tok/s")
        live.update("generate", 10, 10, "130 tok/s")
        live.update("judge", 10, 10, "pass rate 18%")
        live.note("a [line] of its own")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    lines = [" ".join(line.split()) for line in plain.splitlines()]
    assert {"a [line] of its own", "generate 10/10 130 tok/s", "judge 10/10 pass rate 18%"} <= set(lines)


def test_stderr_is_used_and_the_display_before_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = display()
    with shown_on_stderr() as shown:
        assert display() is shown
        display().note("hello")
    assert display() is before
    assert capsys.readouterr() == ("", "hello\n")
