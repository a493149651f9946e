"""What a teacher worker and the pool that started it say to each other, over one pipe, as pickled records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_data import config
from distill_data.models import ModelSource
from distill_data.trace_store import CommittedPart


@dataclass(frozen=True)
class WorkerJob:
    """All that a worker needs to start; the first message it gets."""

    teacher: config.Teacher
    storage: config.Storage
    source: ModelSource
    root: Path
    teacher_id: str
    ingredients: dict[str, Any]
    prompts_path: Path  # the saved prompt set that shards point into


@dataclass(frozen=True)
class Ready:
    """The engine is up."""

    load_seconds: float


@dataclass(frozen=True)
class ShardWanted:
    """The worker's window will soon have room: send a shard, or None when there are no more."""


@dataclass(frozen=True)
class Progress:
    """Finished so far by this worker, committed or not."""

    traces: int
    tokens: int


@dataclass(frozen=True)
class PartWritten:
    """A part is durable."""

    part: CommittedPart


@dataclass(frozen=True)
class Stopped:
    """The worker's last message: everything it finished is committed."""

    complete: bool  # False when it was told to stop before its shards were done


@dataclass(frozen=True)
class Failed:
    """The worker's last message when it cannot go on."""

    message: str
    exit_code: int  # as the error class says: 2 where the input or the model is at fault
