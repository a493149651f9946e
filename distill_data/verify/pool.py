"""Verifier processes: answers are scored in parallel, each within its time limit.

An answer that takes too long, or that takes its process down with it, gets no score and says why; the process is
started again and the others go on. Processes are started afresh (no fork of whatever the caller runs) and end with it.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any

from distill_data.errors import InputError
from distill_data.records import Prompt
from distill_data.verify.verifier_process import IDLE, Progress, Scored

CHUNK_ROWS = 256
_POLL_SECONDS = 0.1
_START_SECONDS = 120.0

Answer = tuple[str, Prompt]


class VerifierProcess:
    """One process, and the chunk that it is at."""

    def __init__(self, judge: Any):
        self.connection, theirs = Pipe()
        memory = os.memfd_create("progress")
        os.ftruncate(memory, 8)
        self._progress = Progress(memory)
        self._progress.row = IDLE
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "distill_data.verify.verifier_process", str(theirs.fileno()), str(memory)],
            pass_fds=[theirs.fileno(), memory],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the build, which ends its verifiers
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # finds what the build finds
        )
        theirs.close()
        os.close(memory)
        self.rows: list[int] = []
        self._row, self._since = IDLE, 0.0
        self.connection.send(judge)

    def wait_until_ready(self) -> None:
        """Raises InputError where the verifier cannot be made, or the process dies before it is."""
        try:
            problem = self.connection.recv() if self.connection.poll(_START_SECONDS) else "it does not start"
        except (EOFError, OSError):
            problem = f"its process ended with status {self._process.wait()}"
        if problem is not None:
            self.end()
            raise InputError(f"the verifier cannot be used: {problem}: change judge:")

    def give(self, rows: list[int], answers: Sequence[Answer]) -> None:
        """Let it score these rows."""
        self.rows, self._row, self._since = rows, IDLE, time.monotonic()
        with suppress(OSError):  # it is dead, which `failed_at` finds
            self.connection.send([answers[row] for row in rows])

    def scored(self) -> Scored | None:
        """What the chunk scored, once it is through."""
        try:
            return self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            return None

    def failed_at(self, seconds: float) -> tuple[int, str] | None:
        """The place in `rows` of the answer that hangs or that killed the process, and what it did."""
        row, now = self._progress.row, time.monotonic()
        if row != self._row:
            self._row, self._since = row, now
        if (status := self._process.poll()) is not None:
            name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            return max(row, 0), f"verifier_crashed: its process ended with {name}"
        if now - self._since > seconds:
            return max(row, 0), f"verifier_timeout: no score after {seconds:g} s"
        return None

    def end(self) -> None:
        """End it and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.connection.close()


class VerifierPool:
    """As many processes of one judge as it asks for, one per core where it does not say; a context manager.

    Raises:
        InputError: the verifier cannot be made.
    """

    def __init__(self, judge: Any):
        self._judge = judge
        count = judge.processes or len(os.sched_getaffinity(0))
        self._processes = [VerifierProcess(judge) for _ in range(count)]
        try:
            for process in self._processes:
                process.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VerifierPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.end()

    def score(self, answers: Sequence[Answer]) -> Scored:
        """Score all of them; their order is kept."""
        scored: Scored = [(math.nan, None)] * len(answers)
        waiting = deque(_chunks(len(answers), len(self._processes)))
        while waiting or any(process.rows for process in self._processes):
            for process in self._processes:
                if waiting and not process.rows:
                    process.give(waiting.popleft(), answers)
            busy = [process for process in self._processes if process.rows]
            wait([process.connection for process in busy], _POLL_SECONDS)
            for process in busy:
                self._collect(process, scored, waiting)
        return scored

    def _collect(self, process: VerifierProcess, scored: Scored, waiting: deque[list[int]]) -> None:
        """Take what a process has to say; where an answer hung or killed it, the others wait for another one."""
        if (found := process.scored()) is not None:
            for row, score in zip(process.rows, found, strict=True):
                scored[row] = score
            process.rows = []
        elif (failed := process.failed_at(self._judge.timeout_seconds)) is not None:
            at, why = failed
            scored[process.rows[at]] = math.nan, why
            waiting.extendleft(filter(None, (process.rows[at + 1 :], process.rows[:at])))
            self._replace(process)

    def _replace(self, process: VerifierProcess) -> None:
        process.end()
        fresh = VerifierProcess(self._judge)
        self._processes[self._processes.index(process)] = fresh
        fresh.wait_until_ready()


def _chunks(rows: int, processes: int) -> list[list[int]]:
    """Rows cut into chunks, small enough that every process gets some."""
    size = max(1, min(CHUNK_ROWS, -(-rows // (2 * processes))))
    return [list(range(start, min(start + size, rows))) for start in range(0, rows, size)]
