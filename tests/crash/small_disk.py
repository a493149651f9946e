"""Disks that are really full, without root: a tmpfs in a namespace of its own, or a limit on the size of files."""

from __future__ import annotations

import os
import resource
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

SIZE = 4 << 20


class Disk(ABC):
    """Where a test writes; `reason` is what the system says when it is full."""

    root: Path
    reason: str

    @abstractmethod
    def fill(self, left: int) -> None:
        """Leave room for about this many bytes (tmpfs), or for files of at most this many (limit)."""

    @abstractmethod
    def make_room(self) -> None:
        """Undo `fill`."""

    @abstractmethod
    def close(self) -> None:
        """Take the disk away."""


class Tmpfs(Disk):
    """A disk of SIZE bytes. Its holder's `/proc` entry leads other processes into the namespace where it is mounted."""

    reason = "No space left on device"

    def __init__(self, folder: Path) -> None:
        """Mount it; OSError where this system lets only root do so."""
        self._mounted = folder
        self._holder = subprocess.Popen(
            [
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                "while read -r line; do $line; echo $?; done",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._do(f"mount -t tmpfs -o size={SIZE} tmpfs {folder}")
        self.root = Path(f"/proc/{self._holder.pid}/root{folder}")

    def fill(self, left: int) -> None:
        """Write a file of all that is free, but for `left` bytes; nothing is left where others write meanwhile."""
        stat = os.statvfs(self.root)
        with open(self.root / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
            ballast.write(bytes(max(0, stat.f_bavail * stat.f_bsize - left)))

    def make_room(self) -> None:
        """Delete that file."""
        (self.root / "ballast").unlink()

    def protect(self) -> None:
        """Make it read-only."""
        self._do(f"mount -o remount,bind,ro {self._mounted}")

    def close(self) -> None:
        """The mount goes with its last process."""
        self._holder.kill()
        self._holder.communicate()

    def _do(self, command: str) -> None:
        assert self._holder.stdin and self._holder.stdout
        try:
            self._holder.stdin.write(command + "\n")
            self._holder.stdin.flush()
            status = self._holder.stdout.readline()
        except BrokenPipeError:
            status = ""
        if status != "0\n":
            self.close()
            raise OSError(f"{command}: {status or 'no namespace'}")


class Limit(Disk):
    """A folder in which this process and those that it starts can write only small files."""

    reason = "File too large"

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, left: int) -> None:
        """Lower the limit; Python ignores SIGXFSZ, so that a write beyond it fails."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (left, self._before[1]))

    def make_room(self) -> None:
        """Raise it to what it was."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

    close = make_room
