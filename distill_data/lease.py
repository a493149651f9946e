"""One build at a time per teacher: two would generate the same traces twice.

The lock is the kernel's (flock): it falls when the build and its last worker are gone, whatever ended them. Workers
inherit it, so that the next build plans only after an orphaned worker has committed what it finished. Workers on other
machines cannot inherit it: each locks a file of its own, for which the next build waits too. A second lock, which
builds share, keeps gc away from traces until they are in a version.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from distill_data.errors import TraceStoreError

LOOK_SECONDS = 0.5  # between two looks whether the other build is done
PREDECESSOR_SECONDS = 60.0  # how long a remote worker may commit after its connection is gone
_LOCK, _IN_USE, _REMOTE_LOCKS = ".lock", ".in-use", ".worker-*.lock"


class Busy(Exception):
    """Another build of this teacher is at work, and this one is not to wait for it."""


@dataclass(frozen=True)
class Lease:
    """What a build of a teacher holds: the lock of the trace store in `folder`, signed in the lock's file."""

    folder: Path  # absolute
    descriptor: int
    signature: str


@contextmanager
def teacher_lease(folder: Path, *, wait: bool, say: Callable[[str], object]) -> Iterator[Lease]:
    """Be the only build of the teacher whose trace store is in `folder`.

    Args:
        folder: is made, with the root above it, if it is not there.
        wait: wait for another build; `say` is told so. Else raise.
        say: takes one line for the person who waits.

    Raises:
        Busy: another build is at work and `wait` is false.
        TraceStoreError: the folder cannot be written.
    """
    descriptor = _open(folder, _LOCK)
    try:
        if not _locked(descriptor):
            other = f"another build of this teacher is at work{_holder(descriptor)}"
            if not wait:
                raise Busy(f"{other}: this one leaves; run it again later, or set storage.when_busy: wait")
            say(f"{other}: waiting for it")
            while not _locked(descriptor):
                time.sleep(LOOK_SECONDS)
        signature = _sign(descriptor)
        _outlive_remote_workers(folder, wait=wait, say=say)
        yield Lease(folder.absolute(), descriptor, signature)
    finally:
        os.close(descriptor)


@contextmanager
def traces_in_use(folder: Path) -> Iterator[None]:
    """Keep gc from deleting traces in `folder`, those too that no version has yet; any number of builds may at once.

    Raises:
        TraceStoreError: the folder cannot be written.
    """
    descriptor = _open(folder, _IN_USE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # gc holds it no longer than it deletes
        yield
    finally:
        os.close(descriptor)


@contextmanager
def traces_unused(folder: Path) -> Iterator[None]:
    """Be sure that no build generates traces in `folder` or makes a version of them, for as long as some are deleted.

    Raises:
        Busy: one does.
        TraceStoreError: the folder cannot be written.
    """
    with teacher_lease(folder, wait=False, say=lambda _: None):
        descriptor = _open(folder, _IN_USE)
        try:
            if not _locked(descriptor):
                raise Busy("a build of this teacher is at work and makes a version")
            yield
        finally:
            os.close(descriptor)


def lock_remotely(folder: Path, signature: str, number: int) -> int:
    """Be worker `number` of the build that signed this, on any machine that shares `folder`; returns the descriptor of
    a lock that falls when it is closed, there and in every process that inherited it.

    Raises:
        TraceStoreError: this machine does not see the build's folder, or the worker before still writes.
    """
    unseen = TraceStoreError(
        f"{socket.gethostname()} does not see the folder {folder} of this build: root: has to be the same shared "
        "folder on every node"
    )
    try:
        descriptor = os.open(folder / f".worker-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        raise unseen from None
    if not _locked_within(descriptor, PREDECESSOR_SECONDS):
        os.close(descriptor)
        raise TraceStoreError(f"worker {number} of before still writes into {folder}: end it, then run again")
    with suppress(OSError):  # looked at under the lock: a later build signs before it looks for remote workers
        if (folder / _LOCK).read_text(encoding="utf-8") == signature:
            return descriptor
    os.close(descriptor)
    raise unseen


def await_remote_worker(folder: Path, number: int) -> None:
    """Return once worker `number` is gone from whatever machine it ran on, or has had a minute to go."""
    with suppress(FileNotFoundError):
        descriptor = os.open(folder / f".worker-{number}.lock", os.O_RDWR | os.O_CLOEXEC)
        _locked_within(descriptor, PREDECESSOR_SECONDS)
        os.close(descriptor)


def _outlive_remote_workers(folder: Path, *, wait: bool, say: Callable[[str], object]) -> None:
    """Wait for the remote workers of builds that were killed; their files go."""
    for file in folder.glob(_REMOTE_LOCKS):
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not _locked(descriptor):
                left = "a worker of a build that was killed still commits on another machine"
                if not wait:
                    raise Busy(f"{left}: this build leaves; run it again later, or set storage.when_busy: wait")
                say(f"{left}: waiting for it")
                while not _locked(descriptor):
                    time.sleep(LOOK_SECONDS)
            file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _open(folder: Path, name: str) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
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


def _locked_within(descriptor: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (locked := _locked(descriptor)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return locked


def _sign(descriptor: int) -> str:
    """Say in the lock file who holds it, for people and remote workers; without these a full disk does not matter."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": now, "lease": secrets.token_hex(4)}
    text = json.dumps(holder)
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
        os.fsync(descriptor)
    return text


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f" (process {holder['process']} on {holder['host']}, since {holder['since']})"
    except (ValueError, KeyError):
        return ""
