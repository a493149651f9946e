"""The pool: the workers of one teacher, from the start of their engines to the end of their processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from distill_data.lease import Lease
from distill_data.teachers.generation import Budget, GenerationProgress, GenerationReport, Work
from distill_data.teachers.handle import Handle
from distill_data.teachers.messages import TeacherJob
from distill_data.teachers.ray_pool import RayPlaces
from distill_data.teachers.run import GenerationRun
from distill_data.teachers.slot import Slot
from distill_data.teachers.worker_handle import WorkerHandle, log_of

STOP_SECONDS = 60.0  # how long a worker may take to commit what it finished


class TeacherPool:
    """The workers of one teacher. `start` loads their engines; `run` gives them work; `close` ends them."""

    def __init__(self, job: TeacherJob, root: Path, *, lease: Lease, verbose: bool = False) -> None:
        """Workers hold on to the lease for as long as they live."""
        self._job = job
        self._root = root
        self._lease = lease
        self._verbose = verbose
        self._slots: list[Slot] = []
        ray = job.teacher.engine.ray
        self._places = None if ray is None else RayPlaces(ray, job.teacher, lease, verbose=verbose)

    def start(self, workers: int | None = None) -> None:
        """Start to load engines, one a worker, as many as the config says or fewer; returns at once."""
        replicas = self._job.teacher.engine.replicas
        for number in range(len(self._slots), min(replicas, workers or replicas)):
            slot = Slot(number)
            self._slots.append(slot)
            self._launch(slot)

    def run(self, work: Work, budget: Budget, on_progress: Callable[[GenerationProgress], None]) -> GenerationReport:
        """Have everything generated that is missing, or as much as the budget allows.

        Raises:
            TeacherError: no worker can be kept alive; everything that workers committed is kept.
            DistillDataError: what a worker says where starting it again would not help.
        """
        if all(slot.over for slot in self._slots):
            self._slots = []  # those of an earlier run
        self.start(-(-len(work.missing) // work.storage.shard_size))
        return GenerationRun(self._slots, self._launch, work, budget, self._where_to_run).go(on_progress)

    def close(self) -> None:
        """Let workers that still run commit what they finished, then end them."""
        running = [slot.handle for slot in self._slots if slot.handle is not None]
        for handle in running:
            handle.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for handle in running:
            handle.end(max(0.1, deadline - time.monotonic()))
        self._slots = []
        if self._places is not None:
            self._places.leave()

    def _launch(self, slot: Slot) -> None:
        handle = self._started(slot.number)
        handle.send(self._job)
        slot.started(handle, self._job.teacher.engine, time.monotonic())

    def _started(self, number: int) -> Handle:
        log = log_of(self._root.absolute(), number)
        if self._places is not None:
            return self._places.start(number, log)
        engine = self._job.teacher.engine
        return WorkerHandle(number, engine, log, lock=self._lease.descriptor, verbose=self._verbose)

    def _where_to_run(self, slots: list[Slot]) -> str:
        waiting = [slot.handle.waiting for slot in slots if slot.handle is not None]
        return self._places.lacking(len(waiting)) if self._places is not None and waiting and all(waiting) else ""
