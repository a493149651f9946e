"""A worker's place in the pool: the process that fills it now, what is known of it, and when it is started again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from distill_data.teacher_config import Engine
from distill_data.teachers.handle import Handle
from distill_data.teachers.messages import Progress

LOADS = 3  # failed starts in a row, after which a place is given up
BARREN_DEATHS = 12  # in a row, too; to find one poison prompt takes 5 at most, four that are neighbours 11
BACKOFF_SECONDS = 1.0  # doubled with every death in a row that nothing was finished before
MAX_BACKOFF_SECONDS = 60.0
NOTHING = Progress(0, 0, 0)


@dataclass
class Slot:
    """Times are those of the monotonic clock. `handle` is None before the first start and between two."""

    number: int
    handle: Handle | None = None
    start_at: float | None = 0.0  # None: it is not to be started (again)
    started_at: float = 0.0
    load_seconds: float | None = None  # None while the engine loads
    wants: bool = False
    leaving: bool = False  # it was told that there is no more work
    progress: Progress = field(default_factory=lambda: NOTHING)
    committed_tokens: int = 0
    moved_at: float = 0.0  # when it last showed that its engine lives
    failed_loads: int = 0
    barren_deaths: int = 0  # in a row, with nothing finished in between
    cause: str = ""  # of its last death, or of the one that is to come
    log: Path | None = None
    engine: Engine = field(default_factory=Engine)

    @property
    def over(self) -> bool:
        """Nothing runs here and nothing will."""
        return self.handle is None and self.start_at is None

    @property
    def tokens_produced(self) -> int:
        """By this process, in the engine or out of it."""
        return self.progress.tokens + self.progress.tokens_in_flight

    def started(self, handle: Handle, engine: Engine, now: float) -> None:
        """A new process fills the place."""
        self.handle, self.engine, self.log = handle, engine, handle.log
        self.start_at, self.cause = None, ""
        self.started_at = self.moved_at = now
        self.load_seconds, self.wants, self.leaving = None, False, False
        self.progress, self.committed_tokens = NOTHING, 0

    def progressed(self, progress: Progress, now: float) -> None:
        """Take its figures; new tokens show that its engine lives."""
        if progress != self.progress:
            self.moved_at = now
        self.progress = progress

    def hangs(self, now: float, *, busy: bool) -> bool:
        """Whether its engine should have been up by now, or produced something for what it is busy with."""
        if self.handle is not None and self.handle.waiting:
            self.started_at = self.moved_at = now
        if self.load_seconds is None and now - self.started_at > self.engine.load_seconds:
            self.cause = f"the engine was not up after {self.engine.load_seconds:g} s (engine.load_seconds)"
            return True
        if busy and now - self.moved_at > self.engine.hang_seconds:
            self.cause = f"no token in {self.engine.hang_seconds:g} s (engine.hang_seconds)"
            return True
        return False

    def died(self, cause: str, now: float, *, at_once: bool) -> None:
        """The process is gone: start it again after a while, or give the place up when that does not help.

        `at_once`: its death was to be expected, it tried suspects.
        """
        self.handle, self.cause = None, cause
        if self.load_seconds is None:
            self.failed_loads += 1
        else:
            self.failed_loads = 0
            self.barren_deaths += 1
        given_up = self.failed_loads >= LOADS or self.barren_deaths >= BARREN_DEATHS
        in_a_row = max(self.failed_loads, self.barren_deaths)
        pause = 0.0 if at_once else min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (in_a_row - 1))
        self.start_at = None if given_up else now + pause
