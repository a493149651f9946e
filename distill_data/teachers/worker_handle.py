"""A worker's process as its pool holds it: start, talk, watch, end.

Workers are processes started afresh (a native crash cannot take the flow down), each the leader of a session of its
own: Ctrl-C reaches the pool, which lets them commit first, and ending the session ends the engine's processes too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from distill_data.errors import ConfigError, TraceStoreError
from distill_data.teacher_config import Engine

WORKER = "distill_data.teachers.worker_process"


def log_of(root: Path, number: int) -> Path:
    """Where worker `number` of this process's pool writes what its engine says."""
    return root / "logs" / f"worker-{os.getpid()}-{number}.log"


class WorkerHandle:
    """One running worker; `number` is its place in the pool, and decides its GPUs."""

    waiting = False  # for a place to run at

    def __init__(
        self, number: int, engine: Engine, log: Path, *, lock: int | None, verbose: bool, module: str = WORKER
    ) -> None:
        """Start the process, of this module. `lock` is a file descriptor that it keeps open for as long as it lives."""
        self.connection, theirs = Pipe()
        self.log = log
        kept = [descriptor for descriptor in (theirs.fileno(), lock) if descriptor is not None]
        with _log_file(self.log) as file:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *map(str, kept)],
                pass_fds=kept,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr if verbose else file,
                stderr=None if verbose else file,
                start_new_session=True,
                env=_environment(engine, number, verbose),
            )
        theirs.close()

    def send(self, message: Any) -> None:
        """Send a message; one to a worker that is gone is dropped, its death is found when it is next received from."""
        with suppress(OSError):
            self.connection.send(message)

    def received(self) -> Iterator[Any]:
        """The messages that have come.

        Raises:
            EOFError: the worker is gone, and everything that it said was received.
        """
        gone = self._process.poll() is not None  # before looking: an engine's process may keep the pipe open
        while self.connection.poll():
            try:
                yield self.connection.recv()
            except OSError:
                raise EOFError from None
        if gone:
            raise EOFError

    def how_it_ended(self) -> str:
        """End what is left of the worker and its engine, and say how it died."""
        self.kill()
        status = self._process.wait()
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"

    def terminate(self) -> None:
        """Ask it to commit what it finished and leave."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it and its engine at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, seconds: float) -> None:
        """Give it this long to leave by itself."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()
        self._process.wait()
        self.connection.close()


def _log_file(log: Path) -> Any:
    try:
        log.parent.mkdir(exist_ok=True)  # the lease made the root; one that vanished is not made again
        return open(log, "ab")
    except OSError as error:
        raise TraceStoreError(
            f"cannot write {log}: {error.strerror}: free space or set root: to a folder that can be written"
        ) from error


def _environment(engine: Engine, number: int, verbose: bool) -> dict[str, str]:
    """A worker's environment: quiet unless asked, and its own GPUs where there are several replicas."""
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "true"}
    if not verbose:
        environment.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if engine.replicas > 1 and engine.servers is None:
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
