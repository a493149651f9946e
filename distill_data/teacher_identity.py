"""Who a config's teacher is: the model it points at, the ingredients of its id, the id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from distill_data import teacher_config
from distill_data.identity import teacher_id
from distill_data.models import ModelSource, model_fingerprint, resolve_model


@dataclass(frozen=True)
class TeacherIdentity:
    """A teacher, found but not loaded."""

    source: ModelSource
    ingredients: dict[str, Any]

    @property
    def teacher_id(self) -> str:
        """Hash of the ingredients."""
        return teacher_id(self.ingredients)


def identify_teacher(teacher: teacher_config.Teacher) -> TeacherIdentity:
    """Find the model and everything else that decides what it says; loads nothing.

    A branch of a hub model is pinned to the commit that the id is made of: a push during a long build changes nothing.

    Raises:
        ModelError: the model is not there.
    """
    source = resolve_model(teacher.model, teacher.revision)
    ingredients = teacher_ingredients(teacher, source)
    return TeacherIdentity(replace(source, revision=ingredients["model"].get("commit", source.revision)), ingredients)


def teacher_ingredients(teacher: teacher_config.Teacher, source: ModelSource) -> dict[str, Any]:
    """Everything that changes what the teacher says, and nothing that does not.

    The model's fingerprint covers its tokenizer and chat template. How many samples are taken, how the text is
    split into thinking and answer, and how the engine runs are left out; so is all sampling where it only scores. Of
    labels their words count, in their order; their names, and what calibrates them, do not.
    """
    return {
        "model": model_fingerprint(source),
        "backend": teacher.backend,
        "prompt_format": teacher.prompt_format,
        "system_prompt": teacher.system_prompt,
        "chat_template_kwargs": teacher.chat_template_kwargs,
        "dtype": teacher.dtype,
        "head_dtype": "float32",
        "quantization": teacher.quantization,
        **_how_it_answers(teacher),
        "logprobs_mode": "raw_logprobs",
    }


def _how_it_answers(teacher: teacher_config.Teacher) -> dict[str, Any]:
    if teacher.mode == "classify":
        return {"mode": "classify", "labels": list(teacher.labels.values()), "template": teacher.template}
    labels = {"soft_labels": teacher.soft_labels.ingredients}
    if teacher.mode == "score":
        return {"mode": "score", **labels}
    # Ids from before there were stop_token_ids stay what they were.
    left_out = {"samples"} if teacher.sampling.stop_token_ids else {"samples", "stop_token_ids"}
    return {"sampling": teacher.sampling.model_dump(exclude=left_out), **labels}
