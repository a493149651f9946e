"""How the lines of a summary look."""

from __future__ import annotations

from typing import Any


def field(name: str, text: str) -> str:
    """A line of a summary: a name and what is to be said of it."""
    return f"  {name:<12}{text}"


def figure(value: Any) -> str:
    """A number for people; anything else as it is."""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def abridged(text: str, shown: int) -> str:
    """At most this many characters of a text."""
    return text if len(text) <= shown else f"{text[:shown]}…"
