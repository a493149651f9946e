"""The trainings of a comparison: every arm with every seed, each a student like any other, found again when done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill_data.compare_config import Arm
from distill_data.config import Config
from distill_data.corpus.read import Corpus
from distill_data.errors import StudentError
from distill_data.models import load_tokenizer
from distill_data.student.job import StudentPlan, plan_student
from distill_data.student.labels import teacher_source


@dataclass(frozen=True)
class Training:
    """One student of a comparison."""

    arm: Arm
    seed: int
    plan: StudentPlan


def trainings(settings: Config, corpus: Corpus) -> list[Training]:
    """Every training of a comparison, arm by arm; trains nothing.

    Raises:
        StudentError: there is no student, nothing is held out to compare on, or a row has no reference to learn from.
    """
    student = settings.student
    if student is None:
        raise StudentError("the config has no student: section: add one")
    if "validation" not in corpus.splits:
        raise StudentError(f"{corpus.reference} holds nothing out: set validation.fraction above 0 and build again")
    if student.train.early_stopping is not None:
        raise StudentError("compare trains every student to its end: leave student.train.early_stopping out")
    found = []
    for arm in settings.compare.arms:
        for seed in settings.compare.seeds:
            changed = student.model_dump() | {"train": _train(settings, corpus, arm, seed)}
            own = settings.model_validate(settings.model_dump() | {"student": changed})
            found.append(Training(arm, seed, plan_student(own, corpus)))
    return found


def _train(settings: Config, corpus: Corpus, arm: Arm, seed: int) -> dict[str, Any]:
    """The section `train` of an arm."""
    assert settings.student is not None
    train = settings.student.train
    changes: dict[str, Any] = {"seed": seed}
    steps = train.steps
    if arm != "soft_labels":
        changes["loss"] = {"objective": "text"}
    if arm == "reference":
        steps = round(steps * _mean_tokens(settings, corpus))
        changes |= {"learns": "reference", "thinking": "train"}
    changes |= {"steps": steps, "look_every": max(steps // settings.compare.looks, 1)}
    return train.model_dump() | changes


def _mean_tokens(settings: Config, corpus: Corpus) -> float:
    """How many times as long as with its reference a row is with the teacher's completion, in the teacher's tokens."""
    traces = corpus.table("traces", "train").select(["prompt_tokens", "completion_tokens", "reference"])
    texts = [text for text in traces["reference"].to_pylist() if text is not None]
    if len(texts) < len(traces):
        raise StudentError(
            f"{len(traces) - len(texts)} rows of {corpus.reference} have no reference to learn from: leave `reference` "
            "out of compare.arms"
        )
    teacher = settings.teacher
    tokenizer = load_tokenizer(teacher_source(teacher), trust_remote_code=teacher.trust_remote_code)
    said = sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])) + len(texts)  # EOS
    prompts, completions = (int(traces[name].to_numpy().sum()) for name in ("prompt_tokens", "completion_tokens"))
    return (prompts + completions) / (prompts + said)
