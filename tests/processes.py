"""The teacher's workers among the processes that a test has started."""

from __future__ import annotations

import os

import psutil


def workers(parent: int | None = None) -> list[psutil.Process]:
    """Workers of this process, or of `parent`: a browser or a server that an earlier test left open is none."""
    children = psutil.Process(parent or os.getpid()).children()
    return [child for child in children if "distill_data.teachers.worker_process" in child.cmdline()]
