"""What a model costs: parameters and bytes of its weights, tokens a second and memory of its engine."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from distill_data.evaluation.entrants import NO_SOFT_LABELS, Entrant
from distill_data.prompts import PromptSet
from distill_data.records import table_to_prompts
from distill_data.teacher_identity import identify_teacher
from distill_data.teachers.messages import TeacherJob
from distill_data.teachers.speed import Speed, measure_speed


@dataclass(frozen=True)
class Cost:
    """`parameters` that are stored, tied ones once, and the `bytes` of their safetensors files; `speed` is None where
    nothing was timed.
    """

    parameters: int
    bytes: int
    dtype: str  # that it answers in
    speed: Speed | None = None


def weights_cost(entrant: Entrant) -> Cost:
    """Parameters and bytes, from the files' headers."""
    files = sorted(entrant.folder.glob("*.safetensors"))
    parameters = sum(_parameters(file) for file in files)
    return Cost(parameters, sum(file.stat().st_size for file in files), entrant.config.teacher.dtype)


def timed(cost: Cost, entrant: Entrant, prompts: PromptSet, seconds: float, *, verbose: bool) -> Cost:
    """The same with what the entrant's engine does, on these prompts, in the config's engine settings; as it is where
    servers run it, which others may be asking too.

    Raises:
        TeacherError: the engine dies.
    """
    if entrant.config.teacher.engine.servers is not None:
        return cost
    teacher = entrant.config.teacher.model_copy(update={"soft_labels": NO_SOFT_LABELS})
    job = TeacherJob(teacher, identify_teacher(teacher).source)
    asked = table_to_prompts(prompts.table)
    return replace(cost, speed=measure_speed(job, asked, seconds, Path(entrant.config.root), verbose=verbose))


def _parameters(file: Path) -> int:
    """Of one safetensors file: its header is JSON behind its length."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
