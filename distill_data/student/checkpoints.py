"""Checkpoints of a training: transformers' own, of which a killed training leaves the last one half written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from transformers.trainer_callback import TrainerState

STATE_NAME = "trainer_state.json"  # the Trainer writes it last
BEST_PREFIX = "best-"  # of files of weights
_CHECKPOINT = re.compile(r"checkpoint-([0-9]+)")


def last_checkpoint(folder: Path) -> tuple[Path | None, int]:
    """The newest whole checkpoint in a folder and its step; (None, 0) without one. Half ones are removed."""
    found: tuple[Path | None, int] = None, 0
    for entry in folder.iterdir():
        name = _CHECKPOINT.fullmatch(entry.name)
        if name is None:
            continue
        if not _is_whole(entry):
            shutil.rmtree(entry)
        elif int(name[1]) > found[1]:
            found = entry, int(name[1])
    return found


def remove_checkpoints(folder: Path) -> None:
    """Free what only a training that goes on needs: checkpoints, and weights that were best when it looked."""
    for entry in folder.iterdir():
        if _CHECKPOINT.fullmatch(entry.name):
            shutil.rmtree(entry)
        elif entry.name.startswith(BEST_PREFIX):
            entry.unlink()


def _is_whole(checkpoint: Path) -> bool:
    try:
        TrainerState.load_from_json(str(checkpoint / STATE_NAME))
    except (OSError, json.JSONDecodeError, TypeError):
        return False
    return True
