"""What a generation run is asked for, shows, and reports."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill_data import config


@dataclass(frozen=True)
class Work:
    """What is missing and where it goes; see `messages.WorkerJob` for what a worker learns of it.

    `missing` is the plan's, and `most_tokens` (int [missing]) how long each of it may get; `prompt_ids` are those of
    the whole prompt set, saved at `prompts_path`.
    """

    missing: pa.Table
    most_tokens: np.ndarray
    prompt_ids: pa.ChunkedArray
    prompts_path: Path
    storage: config.Storage
    root: Path
    teacher_id: str
    ingredients: dict[str, Any]


@dataclass(frozen=True)
class Budget:
    """When to pause: finish what is in the engine, keep everything, go on with the next run. None is no limit."""

    max_tokens: int | None = None  # completion tokens, those still in the engine included
    max_hours: float | None = None  # since generation began, the engine's start included

    def reached(self, tokens: int, seconds: float) -> str | None:
        """What limit is reached, as words; None where none is."""
        if self.max_tokens is not None and tokens >= self.max_tokens:
            return f"--max-tokens {self.max_tokens:,} is reached"
        if self.max_hours is not None and seconds >= 3600 * self.max_hours:
            return f"--max-hours {self.max_hours:g} is reached"
        return None

    def after(self, report: GenerationReport) -> Budget:
        """What is left of it for a second run."""
        hours = report.seconds / 3600
        return Budget(
            None if self.max_tokens is None else max(0, self.max_tokens - report.tokens),
            None if self.max_hours is None else max(0.0, self.max_hours - hours),
        )


NO_BUDGET = Budget()


@dataclass(frozen=True)
class GenerationProgress:
    """How far generation is, over all workers."""

    traces: int
    wanted: int
    tokens: int
    seconds: float  # since the first engine was ready; 0 while engines load
    workers_ready: int
    restarts: int
    waiting_for: str = ""  # the place that workers wait for, where none has found one for a while


@dataclass(frozen=True)
class GenerationReport:
    """What a generation run did."""

    traces: int
    tokens: int
    parts: int
    load_seconds: float  # the slowest engine's start
    engine_seconds: float  # from the first engine being ready to the last part
    seconds: float = 0.0  # of it all, the engines' start included
    restarts: int = 0  # of workers that died or hung
    regenerated: int = 0  # traces that died with them unfinished or uncommitted
    dead_letters: int = 0  # traces of prompts that kill the engine
    paused: str | None = None  # the limit that ended the run before its work was done

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens per second of engine time, all workers together."""
        return self.tokens / self.engine_seconds if self.engine_seconds else 0.0

    def __add__(self, later: GenerationReport) -> GenerationReport:
        """Two runs, one after the other."""
        summed = {
            field.name: getattr(self, field.name) + getattr(later, field.name)
            for field in fields(self)
            if field.name not in ("load_seconds", "paused")
        }
        return replace(later, **summed)


NOTHING_GENERATED = GenerationReport(0, 0, 0, 0.0, 0.0)
