"""SHA-256 of files, with a cache so that a folder of 100 GB is read once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path

from distill_data.errors import InputError
from distill_data.identity import digest

CACHE_MIN_BYTES = 16 * 2**20  # smaller files are hashed faster than their cache entry is worth
SETTLED_NS = 2 * 10**9  # a file changed more recently may change again within one tick of its clock


def cache_folder() -> Path:
    """Where converted models and file hashes are kept.

    `DISTILL_DATA_CACHE`, else `$XDG_CACHE_HOME/distill-data`, else `~/.cache/distill-data`.
    """
    if own := os.environ.get("DISTILL_DATA_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache").expanduser().absolute() / "distill-data"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex. Big files are hashed once, until anything about the file changes.

    Raises:
        InputError: the file changes while it is read.
    """
    before = _state(path)
    entry = cache_folder() / "hashes" / f"{digest(before)}.txt"
    big = path.stat().st_size >= CACHE_MIN_BYTES
    settled = time.time_ns() - path.stat().st_ctime_ns > SETTLED_NS
    if big and entry.is_file():
        return entry.read_text().strip()
    with path.open("rb") as stream:
        sha = hashlib.file_digest(stream, "sha256").hexdigest()
    if _state(path) != before:
        raise InputError(f"{path} changed while it was read: start again when it is complete")
    if big and settled:
        # A cache that cannot be written only costs the time of hashing again.
        with contextlib.suppress(OSError):
            _write_whole(entry, sha)
    return sha


def _state(path: Path) -> list[str | int]:
    """What changes when a file does; ctime also moves when a copy tool sets an old mtime."""
    stat = path.stat()
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _write_whole(path: Path, text: str) -> None:
    """Write a small file so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(name, path)
