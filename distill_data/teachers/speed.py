"""How many tokens a second an engine makes, and the memory that it takes, measured in a process of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from distill_data.errors import TeacherError
from distill_data.records import Prompt
from distill_data.teachers.messages import TeacherJob
from distill_data.teachers.worker_handle import WorkerHandle, log_of

_MODULE = "distill_data.teachers.speed_process"


@dataclass(frozen=True)
class Speed:
    """What one engine did. Memory is the peak of its process on a CPU, all that is in use on the device on a GPU; both
    hold the KV cache, which is as large as the engine's settings say, whatever the model.
    """

    tokens_per_second: float
    seconds: float
    peak_memory_bytes: int
    device: str


@dataclass(frozen=True)
class SpeedJob:
    """The only message to the process; it answers with a `Speed` or a `Failed`."""

    teacher: TeacherJob
    prompts: list[Prompt]
    seconds: float


def measure_speed(job: TeacherJob, prompts: list[Prompt], seconds: float, root: Path, *, verbose: bool) -> Speed:
    """Time one engine on these prompts, over and over, for `seconds` after as long a warm-up; its log is in `root`.

    Raises:
        TeacherError: the engine cannot be started, dies or hangs.
    """
    engine = job.teacher.engine
    handle = WorkerHandle(0, engine, log_of(root, 0), lock=None, verbose=verbose, module=_MODULE)
    try:
        handle.send(SpeedJob(job, prompts, seconds))
        deadline = time.monotonic() + engine.load_seconds + engine.hang_seconds + 2 * seconds
        while time.monotonic() < deadline:
            wait([handle.connection], timeout=0.5)
            for message in handle.received():
                if isinstance(message, Speed):
                    return message
                raise TeacherError(f"{job.teacher.model} cannot be timed: {message.message} (its log: {handle.log})")
        raise TeacherError(f"{job.teacher.model} cannot be timed: its engine hangs (its log: {handle.log})")
    except EOFError:
        how = handle.how_it_ended()
        raise TeacherError(f"{job.teacher.model} cannot be timed: {how} (its log: {handle.log})") from None
    finally:
        handle.end(0.0)
