"""The engine that a student answers in, and a baseline beside it."""

from __future__ import annotations

import json
from pathlib import Path

from distill_data.teacher_config import Engine


def small_engine(engine: Engine, folder: Path) -> Engine:
    """The teacher's engine for a small model: on one device a replica, in a context that the student has."""
    return fitting_engine(engine, folder).model_copy(update={"tensor_parallel_size": 1})


def fitting_engine(engine: Engine, folder: Path) -> Engine:
    """The teacher's engine for the model in `folder`, in a context that it has; servers run the teacher."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    context = config.get("max_position_embeddings")
    lengths = [length for length in (engine.max_model_len, context) if length is not None]
    return engine.model_copy(update={"servers": None, "max_model_len": min(lengths, default=None)})
