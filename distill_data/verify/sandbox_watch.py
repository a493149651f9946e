"""Follow one sandboxed process to its end: drain what it says, stop it at a limit, leave nothing of it behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill_data.verify.sandbox_limits import Limits

Stopped = Literal["timeout", "output", "killed"]

READY = b"sr"  # locked down, and the program's last line was reached
_LOOK_SECONDS = 0.02  # between two looks at threads and files, which no resource limit of an ordinary user counts
_MOST_FILES = 256
_MOST_REPORTED = 1024


@dataclass
class Stream:
    """The reading end of a pipe that the process writes to, never read past `most` bytes (and one that tells)."""

    descriptor: int
    most: int
    held: bytes = b""
    open: bool = True

    def drain(self) -> None:
        """Take what is there."""
        while self.open and not self.overflows:
            try:
                chunk = os.read(self.descriptor, self.most + 1 - len(self.held))
            except BlockingIOError:
                return
            self.held += chunk
            self.open = bool(chunk)

    @property
    def overflows(self) -> bool:
        """More came than may be kept."""
        return len(self.held) > self.most


@dataclass(frozen=True)
class Ending:
    """How a process ended: why it was stopped (None: it was not), its exit code (-N after signal N), what it said."""

    stopped: Stopped | None
    exit_code: int
    cpu_seconds: float
    stdout: bytes
    stderr: bytes
    report: bytes


class Watch:
    """One process, from its start on."""

    def __init__(self, process: subprocess.Popen[bytes], report: int, limits: Limits, folder: str) -> None:
        assert process.stdout is not None and process.stderr is not None
        self._process, self._limits, self._folder = process, limits, folder
        self._report = Stream(report, _MOST_REPORTED)
        self._output = [Stream(pipe.fileno(), limits.output_bytes) for pipe in (process.stdout, process.stderr)]
        self._deadline = time.monotonic() + limits.wall
        self._next_look = 0.0

    def follow(self, when_ready: Callable[[], None]) -> Ending:
        """Wait for the end, however it comes; `when_ready` is called once, when the report says READY.

        The process is dead and reaped when this returns or raises.
        """
        stopped: Stopped | None = "killed"
        process_end = os.pidfd_open(self._process.pid)
        try:
            stopped = self._until_it_ends(process_end, when_ready)
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process_end, signal.SIGKILL)
            os.close(process_end)
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        stdout, stderr = (stream.held[: stream.most] for stream in self._output)
        return Ending(stopped, self._process.returncode, cpu, stdout, stderr, self._report.held)

    def _until_it_ends(self, process_end: int, when_ready: Callable[[], None]) -> Stopped | None:
        """None when it ended by itself; else why it has to be stopped."""
        streams = [*self._output, self._report]
        with selectors.DefaultSelector() as selector:
            selector.register(process_end, selectors.EVENT_READ)
            for stream in streams:
                os.set_blocking(stream.descriptor, False)
                selector.register(stream.descriptor, selectors.EVENT_READ, stream)
            asked = False
            while True:
                found = [key for key, _ in selector.select(_LOOK_SECONDS)]
                ended = any(key.data is None for key in found)
                for stream in streams if ended else [key.data for key in found]:
                    stream.drain()
                    if not stream.open and stream.descriptor in selector.get_map():
                        selector.unregister(stream.descriptor)
                if any(stream.overflows for stream in streams):
                    return "output"
                if ended:
                    return None
                if not asked and self._report.held == READY:
                    asked = True
                    when_ready()
                if stopped := self._past_a_limit():
                    return stopped

    def _past_a_limit(self) -> Stopped | None:
        """What the kernel does not watch: the clock, the threads, the files together."""
        now = time.monotonic()
        if now >= self._deadline:
            return "timeout"
        if now < self._next_look:
            return None
        self._next_look = now + _LOOK_SECONDS
        if _threads(self._process.pid) > self._limits.threads:
            return "killed"
        return "output" if _overflows(self._folder, self._limits.file_bytes) else None


def _threads(pid: int) -> int:
    """Field 20 of proc_pid_stat(5), counted behind the name, which may hold anything."""
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[17])


def _overflows(folder: str, most: int) -> bool:
    """More bytes on disk than `most`, or more files than are looked at; folders cannot be made in it."""
    total = 0
    with os.scandir(folder) as entries:
        for place, entry in enumerate(entries):
            with suppress(FileNotFoundError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
            if place >= _MOST_FILES or total > most:
                return True
    return False
