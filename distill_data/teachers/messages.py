"""What a teacher worker and the pool that started it say to each other, over one pipe, as pickled records.

Traces are named by their row in the plan's missing work, which both sides know from shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_data import config, teacher_config
from distill_data.models import ModelSource
from distill_data.trace_store import CommittedPart


@dataclass(frozen=True)
class TeacherJob:
    """What a worker needs to load its teacher; the first message it gets."""

    teacher: teacher_config.Teacher
    source: ModelSource


@dataclass(frozen=True)
class WorkerJob:
    """Where the work is and where it goes; the second message."""

    storage: config.Storage
    root: Path
    teacher_id: str
    ingredients: dict[str, Any]
    prompts_path: Path  # the saved prompt set that shards point into


@dataclass(frozen=True)
class NoMoreShards:
    """To the worker: finish what you have, commit and stop."""


@dataclass(frozen=True)
class Drain:
    """To the worker: start nothing new, finish what is running, commit and stop."""


@dataclass(frozen=True)
class Ready:
    """The engine is up and has answered a first request."""

    load_seconds: float


@dataclass(frozen=True)
class ShardWanted:
    """The worker's window will soon have room: send a shard."""


@dataclass(frozen=True)
class Moved:
    """Which traces went into the engine and which came out of it since the last such message."""

    started: list[int]
    finished: list[int]


@dataclass(frozen=True)
class Progress:
    """What this worker finished, committed or not, and what its engine has produced for the rest."""

    traces: int
    tokens: int
    tokens_in_flight: int


@dataclass(frozen=True)
class PartWritten:
    """A part is durable."""

    part: CommittedPart
    traces: np.ndarray  # int32: what is in it


@dataclass(frozen=True)
class Stopped:
    """The worker's last message: everything it finished is committed."""

    complete: bool  # False when it was told to stop before its shards were done


@dataclass(frozen=True)
class Failed:
    """The worker's last message when it cannot go on; what it finished is committed."""

    message: str
    exit_code: int | None  # of the error class, where starting it again would not help; None where it may
