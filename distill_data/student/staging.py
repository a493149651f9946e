"""Make a folder that appears under its name only when it is whole, by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from distill_data.errors import DistillDataError
from distill_data.parquet import sync_folder


def make_once(folder: Path, is_whole: Callable[[], bool], make: Callable[[Path], None]) -> None:
    """Let `make` fill a folder beside `folder`, then rename it; do nothing where `is_whole()`.

    Makers of one folder take turns by `.NAME.lock` beside it, which the kernel drops when its holder dies: whoever
    had to wait finds the folder whole. A killed maker's folder is given to the next one as it was left; one whose
    making failed is removed unless it has checkpoints, and so is half a folder under the name itself.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if is_whole():
            return
        if folder.exists():
            shutil.rmtree(folder)
        staging = folder.with_name(f".{folder.name}.unfinished")
        staging.mkdir(exist_ok=True)
        try:
            make(staging)
        except DistillDataError:
            if not any(staging.glob("checkpoint-*")):  # what a training can go on from is not lost
                shutil.rmtree(staging, ignore_errors=True)
            raise
        os.replace(staging, folder)
        sync_folder(folder.parent)
