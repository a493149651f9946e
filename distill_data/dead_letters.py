"""Dead letters: prompts that killed the teacher's engine, one JSON line each, for people to look into.

The trace store holds an `engine_died` row for each, so that a build goes on without them; this file says the same
readably, beside the parts.
"""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from distill_data.errors import TraceStoreError, reason_of

FILE_NAME = "dead_letters.jsonl"


def append_dead_letters(folder: Path, traces: list[tuple[str, int]], cause: str) -> None:
    """Add (prompt_id, sample_index) pairs with the cause of death; written before their rows, so none is missed.

    Raises:
        TraceStoreError: the folder cannot be written; the file is as it was.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [
        json.dumps({"prompt_id": prompt, "sample_index": sample, "cause": cause, "at": at}) + "\n"
        for prompt, sample in traces
    ]
    try:
        _append(folder / FILE_NAME, "".join(lines).encode())
    except OSError as error:
        raise TraceStoreError(
            f"cannot write {folder / FILE_NAME}: {reason_of(error)}: free space or fix the folder, then run the same "
            "command again"
        ) from error


def _append(file: Path, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        if os.write(descriptor, data) < len(data):  # as much as a full disk took
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
