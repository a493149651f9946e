"""Make a folder that appears under its name only when it is whole, by one process at a time."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from distill_data.parquet import sync_folder


def make_once(folder: Path, is_whole: Callable[[], bool], make: Callable[[Path], None]) -> None:
    """Let `make` fill an empty folder beside `folder`, then rename it; do nothing where `is_whole()`.

    Makers of one folder take turns by `.NAME.lock` beside it, which the kernel drops when its holder dies: whoever
    had to wait finds the folder whole. What killed makers left, half a folder under the name too, is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if is_whole():
            return
        _clear_halves(folder)
        staging = folder.with_name(f".{folder.name}.{os.getpid()}")
        staging.mkdir()
        try:
            make(staging)
            os.replace(staging, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _clear_halves(folder: Path) -> None:
    """Remove what killed makers left; the caller holds the lock, so nobody is writing there."""
    staged = re.compile(rf"\.{re.escape(folder.name)}\.[0-9]+")
    for half in [entry for entry in folder.parent.iterdir() if staged.fullmatch(entry.name)]:
        shutil.rmtree(half)
    if folder.exists():
        shutil.rmtree(folder)
