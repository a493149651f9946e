"""Who is evaluated: the teacher, the student, the baselines, each as the teacher of a job of its own.

So what they say is planned, generated, kept and judged as what teachers say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill_data.config import Config
from distill_data.errors import StudentError
from distill_data.evaluate_config import Baseline
from distill_data.models import (
    ModelSource,
    load_tokenizer,
    local_model_folder,
    resolve_model,
    tokenizer_fingerprint,
)
from distill_data.student.engine import fitting_engine, small_engine
from distill_data.student.job import StudentPlan
from distill_data.teacher_config import SoftLabelSelection

Role = Literal["teacher", "student", "baseline"]
NO_SOFT_LABELS = SoftLabelSelection(min_prob=1.0, max_support=1)
"""What is kept of distributions where nobody learns from them: the likeliest token."""
_DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Entrant:
    """A model that is evaluated, and the config under which it answers; `folder` is what loads."""

    name: str
    role: Role
    config: Config
    source: ModelSource
    folder: Path

    @property
    def reference(self) -> str:
        """The model as the config names it."""
        return self.config.teacher.model


def entrants(plan: StudentPlan) -> list[Entrant]:
    """The teacher, the student and the baselines, in this order; loads no weights.

    Raises:
        ModelError: a baseline is not there.
        StudentError: a baseline has other tokens than those that end the teacher's traces.
    """
    student = Baseline(name="student", model=str(plan.folder), trust_remote_code=plan.student.trust_remote_code)
    others = [_entrant(plan, "baseline", baseline) for baseline in plan.student.evaluate.baselines]
    return [_teacher(plan), _entrant(plan, "student", student), *others]


def has_the_corpus_tokens(entrant: Entrant, plan: StudentPlan) -> bool:
    """Whether an entrant's tokens are those of the corpus, so that it can be measured on them."""
    trust = entrant.config.teacher.trust_remote_code
    own = tokenizer_fingerprint(load_tokenizer(entrant.source, trust_remote_code=trust))
    return own == plan.corpus.manifest.tokenizer["sha256"]


def samples_of(plan: StudentPlan) -> int:
    """Answers of everyone to each prompt."""
    return plan.student.evaluate.samples or plan.config.teacher.sampling.samples


def _teacher(plan: StudentPlan) -> Entrant:
    """The teacher with its own soft labels: what it said for the corpus is not generated again."""
    teacher = plan.config.teacher
    source = resolve_model(teacher.model, teacher.revision)
    folder = local_model_folder(source, trust_remote_code=teacher.trust_remote_code)
    return Entrant("teacher", "teacher", _asked(plan, {}), source, folder)


def _entrant(plan: StudentPlan, role: Role, model: Baseline) -> Entrant:
    source = resolve_model(model.model, model.revision)
    folder = local_model_folder(source, trust_remote_code=model.trust_remote_code)
    changes = {
        "model": model.model,
        "revision": model.revision,
        "trust_remote_code": model.trust_remote_code,
        "dtype": plan.student.evaluate.dtype or saved_dtype(folder) or plan.config.teacher.dtype,
        "quantization": None,
        "soft_labels": NO_SOFT_LABELS,
        "engine": (small_engine if role == "student" else fitting_engine)(plan.config.teacher.engine, folder),
    }
    entrant = Entrant(model.name, role, _asked(plan, changes), source, folder)
    if plan.config.teacher.sampling.stop_token_ids and not has_the_corpus_tokens(entrant, plan):
        raise StudentError(
            f"{model.name} has another tokenizer than the teacher, whose sampling.stop_token_ids are other tokens to "
            "it: leave the baseline out, or the ids"
        )
    return entrant


def _asked(plan: StudentPlan, changes: dict[str, Any]) -> Config:
    """The config's job with another teacher: the same prompts, judges and sampling, and as many samples of each."""
    config, samples = plan.config, samples_of(plan)
    sampling = config.teacher.sampling.model_copy(update={"samples": samples})
    sources = [
        source.model_copy(update={"sampling": source.sampling and source.sampling.model_copy(update={"samples": None})})
        for source in config.prompts
    ]
    teacher = config.teacher.model_copy(update=changes | {"sampling": sampling})
    return config.model_copy(update={"teacher": teacher, "prompts": sources, "student": None})


def saved_dtype(folder: Path) -> Any:
    """The precision that a model's weights were saved in, None where its config does not say one that engines know."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dtype = config.get("dtype") or config.get("torch_dtype")
    return dtype if dtype in _DTYPES else None
