"""One build at a time per teacher: two would generate the same traces twice.

The lock is the kernel's (flock): it falls when the build and its last worker are gone, whatever ended them. Workers
inherit it, so that the next build plans only after an orphaned worker has committed what it finished.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from distill_data.errors import TraceStoreError

LOOK_SECONDS = 0.5  # between two looks whether the other build is done


class Busy(Exception):
    """Another build of this teacher is at work, and this one is not to wait for it."""


@contextmanager
def teacher_lease(folder: Path, *, wait: bool, say: Callable[[str], object]) -> Iterator[int]:
    """Be the only build of the teacher whose trace store is in `folder`; yields the lock's file descriptor.

    Args:
        folder: is made, with the root above it, if it is not there.
        wait: wait for another build; `say` is told so. Else raise.
        say: takes one line for the person who waits.

    Raises:
        Busy: another build is at work and `wait` is false.
        TraceStoreError: the folder cannot be written.
    """
    descriptor = _open(folder)
    try:
        if not _locked(descriptor):
            other = f"another build of this teacher is at work{_holder(descriptor)}"
            if not wait:
                raise Busy(f"{other}: this one leaves; run it again later, or set storage.when_busy: wait")
            say(f"{other}: waiting for it")
            while not _locked(descriptor):
                time.sleep(LOOK_SECONDS)
        _sign(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise TraceStoreError(
            f"cannot write {folder}: {error.strerror}: set root: to a folder that can be written"
        ) from error


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int) -> None:
    """Say in the lock file who holds it; only for people, so a full disk does not matter here."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    text = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now})
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f" (process {holder['process']} on {holder['host']}, since {holder['since']})"
    except (ValueError, KeyError):
        return ""
