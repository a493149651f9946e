"""Where the time of one thread goes: every second is counted once, for the innermost part that it was spent in.

Seconds are those of a clock on the wall, or of any other that is given, such as `time.process_time`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch


class Stopwatch:
    """Use as a context manager; functions that `time` wraps are themselves again afterwards."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0
        self._wrapped = ExitStack()

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._wrapped.close()

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Time spent inside is this part's, except where an inner part has it."""
        self._turn()
        self._running.append(part)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def time(self, owner: Any, name: str, part: str) -> None:
        """Count what `owner.name(...)` takes for this part."""
        original = getattr(owner, name)

        @wraps(original)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.of(part):
                return original(*arguments, **named)

        self._wrapped.enter_context(patch.object(owner, name, timed))

    def _turn(self) -> None:
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
