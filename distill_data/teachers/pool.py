"""The pool: starts teacher workers on this machine, hands them shards, and gathers small reports.

Workers are processes started afresh (a native crash cannot take the flow down) and write the data themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from distill_data.errors import ConfigError, DistillDataError, ModelError, TeacherError
from distill_data.planning import Shard
from distill_data.teachers.messages import Failed, PartWritten, Progress, Ready, ShardWanted, Stopped, WorkerJob

STOP_SECONDS = 60.0  # how long a worker may take to commit what it finished


@dataclass(frozen=True)
class GenerationProgress:
    """How far generation is, over all workers."""

    traces: int
    wanted: int
    shards_started: int
    shards: int
    tokens: int
    seconds: float  # since the first engine was ready; 0 while engines load
    workers_ready: int


@dataclass(frozen=True)
class GenerationReport:
    """What a generation run did."""

    traces: int
    tokens: int
    parts: int
    load_seconds: float  # the slowest engine's start
    engine_seconds: float  # from the first engine being ready to the last part

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens per second of engine time, all workers together."""
        return self.tokens / self.engine_seconds if self.engine_seconds else 0.0


NOTHING_GENERATED = GenerationReport(0, 0, 0, 0.0, 0.0)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    log: Path
    load_seconds: float | None = None
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    stopped: bool = False


class TeacherPool:
    """Workers of one job; `run` returns when every shard is committed."""

    def __init__(
        self, job: WorkerJob, shards: list[Shard], on_progress: Callable[[GenerationProgress], None], verbose: bool
    ) -> None:
        self._job = job
        self._shards = deque(shards)
        self._total_shards = len(shards)
        self._wanted = sum(len(shard) for shard in shards)
        self._on_progress = on_progress
        self._verbose = verbose
        self._workers: list[_Worker] = []
        self._written: list[PartWritten] = []
        self._ready_at: float | None = None
        self._ended_at = 0.0

    def run(self) -> GenerationReport:
        """Start workers, feed them, and wait for them.

        Raises:
            TeacherError: a worker died or failed; everything that workers committed is kept.
            ModelError: the teacher cannot be loaded as configured.
        """
        replicas = min(self._job.teacher.engine.replicas, len(self._shards))
        try:
            for number in range(replicas):
                self._workers.append(self._start(number))
            while not all(worker.stopped for worker in self._workers):
                self._serve()
            self._ended_at = time.monotonic()
        finally:
            self._stop()
        return self._report()

    def _start(self, number: int) -> _Worker:
        ours, theirs = Pipe()
        log = self._job.root / "logs" / f"worker-{os.getpid()}-{number}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "distill_data.teachers.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr if self._verbose else file,
                stderr=None if self._verbose else file,
                start_new_session=True,  # Ctrl-C reaches the pool, which lets workers commit first
                env=_environment(self._job, number, self._verbose),
            )
        theirs.close()
        ours.send(self._job)
        return _Worker(process, ours, log)

    def _serve(self) -> None:
        """Handle what workers say within the next second."""
        alive = {worker.connection: worker for worker in self._workers if not worker.stopped}
        for connection in wait(list(alive), timeout=1.0):
            self._receive(alive[connection])  # type: ignore[index]
        self._on_progress(self._progress())

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
            if isinstance(message, ShardWanted):
                worker.connection.send(self._shards.popleft() if self._shards else None)
        except (EOFError, ConnectionResetError, BrokenPipeError):
            raise self._died(worker) from None
        match message:
            case Ready(load_seconds):
                worker.load_seconds = load_seconds
                self._ready_at = self._ready_at or time.monotonic()
            case Progress():
                worker.progress = message
            case PartWritten():
                self._written.append(message)
            case Stopped(complete):
                worker.stopped = True
                if not complete:
                    raise TeacherError(
                        "a teacher worker was told to stop before its work was done: run the same command again "
                        "to continue; everything finished is kept"
                    )
            case Failed(reason, exit_code):
                worker.stopped = True
                kind = ModelError if exit_code == 2 else TeacherError
                raise kind(f"the teacher stopped: {reason} (its log: {worker.log})")

    def _died(self, worker: _Worker) -> DistillDataError:
        worker.stopped = True
        status = worker.process.wait()
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return TeacherError(
            f"a teacher worker died ({how}); everything committed is kept: see {worker.log}, then run the same "
            "command again to continue"
        )

    def _stop(self) -> None:
        """Let workers that still run commit what they finished, then end them."""
        for worker in self._workers:
            if worker.process.poll() is None and not worker.stopped:
                worker.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.connection.close()
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()

    def _progress(self) -> GenerationProgress:
        return GenerationProgress(
            traces=sum(worker.progress.traces for worker in self._workers),
            wanted=self._wanted,
            shards_started=self._total_shards - len(self._shards),
            shards=self._total_shards,
            tokens=sum(worker.progress.tokens for worker in self._workers),
            seconds=0.0 if self._ready_at is None else time.monotonic() - self._ready_at,
            workers_ready=sum(worker.load_seconds is not None for worker in self._workers),
        )

    def _report(self) -> GenerationReport:
        return GenerationReport(
            traces=sum(written.part.rows for written in self._written),
            tokens=sum(written.part.completion_tokens for written in self._written),
            parts=len(self._written),
            load_seconds=max((worker.load_seconds or 0.0 for worker in self._workers), default=0.0),
            engine_seconds=0.0 if self._ready_at is None else self._ended_at - self._ready_at,
        )


def _environment(job: WorkerJob, number: int, verbose: bool) -> dict[str, str]:
    """A worker's environment: quiet unless asked, and its own GPUs where there are several replicas."""
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "true"}
    if not verbose:
        environment.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    engine = job.teacher.engine
    if engine.replicas > 1:
        each, needed = engine.tensor_parallel_size, engine.replicas * engine.tensor_parallel_size
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(device) for device in range(needed)]
        if len(devices) < needed:
            raise ConfigError(
                f"{engine.replicas} replicas of {each} GPUs need {needed}, CUDA_VISIBLE_DEVICES names {len(devices)}: "
                "lower teacher.engine.replicas or tensor_parallel_size"
            )
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices[number * each : (number + 1) * each])
    return environment
