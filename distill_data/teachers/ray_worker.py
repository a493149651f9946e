"""A worker on a Ray cluster, as its actor sees it: the actor starts the worker's process on its node and passes on what
is said. The same process as on one machine: it is found dead or hanging, committed and ended in the same ways.

Nothing here imports Ray; `ray_pool` makes an actor of `Replica`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from distill_data.errors import DistillDataError
from distill_data.lease import lock_remotely
from distill_data.teacher_config import Engine
from distill_data.teachers.messages import Failed
from distill_data.teachers.worker_handle import WorkerHandle

_LOOK_SECONDS = 0.5  # between looks whether the process is gone whose pipe is still open


@dataclass(frozen=True)
class Start:
    """What an actor needs to start its worker."""

    number: int
    engine: Engine
    log: Path
    store: Path  # the trace store's folder, and what the build wrote into its lock
    signature: str
    verbose: bool


@dataclass(frozen=True)
class Ended:
    """The last thing that an actor says: how its worker's process ended."""

    how: str


class Replica:
    """The actor. `messages` runs for as long as the worker; the other methods are called meanwhile, in any order."""

    def __init__(self, start: Start) -> None:
        self._handle: WorkerHandle | None = None
        self._refusal = ""
        self._early: dict[int, Any] = {}
        self._next = 0
        self._sending = threading.Lock()
        try:
            lock = lock_remotely(start.store, start.signature, start.number)
            try:
                engine = start.engine.model_copy(update={"replicas": 1})  # this node's GPUs are Ray's to give
                self._handle = WorkerHandle(start.number, engine, start.log, lock=lock, verbose=start.verbose)
            finally:
                os.close(lock)  # the worker's process has it
        except DistillDataError as error:
            self._refusal = str(error)

    def messages(self) -> Iterator[list[Any]]:
        """What the worker says, as it says it; first nothing, which shows that the actor is there."""
        yield []
        if self._handle is None:
            yield [Failed(self._refusal, None), Ended("not started")]
            return
        gone = False
        while not gone:
            wait([self._handle.connection], timeout=_LOOK_SECONDS)
            said, gone = _heard(self._handle)
            if said:
                yield said
        yield [Ended(self._handle.how_it_ended())]

    def send(self, turn: int, message: Any) -> None:
        """Pass on the `turn`-th message; calls may arrive in another order than they were made in."""
        with self._sending:
            self._early[turn] = message
            while self._next in self._early:
                if self._handle is not None:
                    self._handle.send(self._early[self._next])
                del self._early[self._next]
                self._next += 1

    def terminate(self) -> None:
        """Ask the worker to commit what it finished and leave."""
        if self._handle is not None:
            self._handle.terminate()

    def kill(self) -> None:
        """End the worker and its engine at once."""
        if self._handle is not None:
            self._handle.kill()


def _heard(handle: WorkerHandle) -> tuple[list[Any], bool]:
    """The messages that have come, and whether they are the last."""
    said: list[Any] = []
    try:
        for message in handle.received():
            said.append(message)
    except EOFError:
        return said, True
    return said, False
