"""The trainings of a comparison: every arm with every seed, each a student like any other, found again when done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_data.compare_config import Arm
from distill_data.config import Config
from distill_data.corpus.read import Corpus
from distill_data.errors import ConfigError, StudentError
from distill_data.student.job import StudentPlan, plan_student
from distill_data.student.labels import StudentLabels
from distill_data.student_config import Student


@dataclass(frozen=True)
class Training:
    """One student of a comparison."""

    arm: Arm
    seed: int
    plan: StudentPlan


def comparable_student(settings: Config) -> Student:
    """The student of a config whose arms differ in what they learn from; looks at nothing else.

    Raises:
        ConfigError: there is none, or they would not.
    """
    student = settings.student
    if student is None:
        raise ConfigError("the config has no student: section: add one")
    if student.task == "classification":
        raise ConfigError(
            "student.task is classification and compare trains language models: train classifiers by `distill-data "
            "train`, each with a student.train.loss of its own"
        )
    train = student.train
    if train.learns == "reference":
        raise ConfigError(
            "student.train.learns is reference, so that every arm of compare would learn from references: leave it "
            "out, and student.train.loss.objective text too"
        )
    if not train.loss.kl:
        raise ConfigError(
            f"student.train.loss has objective {train.loss.objective} and kl 0, so that the arm soft_labels of compare "
            "would learn from text alone, as the arm text does: leave both out"
        )
    if train.early_stopping is not None:
        raise ConfigError("compare trains every student to its end: leave student.train.early_stopping out")
    return student


def trainings(settings: Config, corpus: Corpus) -> list[Training]:
    """Every training of a comparison, arm by arm; trains nothing.

    Raises:
        ConfigError: as for `comparable_student`.
        StudentError: nothing is held out to compare on, or a row has no reference to learn from.
    """
    student = comparable_student(settings)
    if "validation" not in corpus.splits:
        raise StudentError(f"{corpus.reference} holds nothing out: set validation.fraction above 0 and build again")
    found = []
    for arm in settings.compare.arms:
        learner = _learner(student, arm)
        steps = student.train.steps
        if arm == "reference":
            _require_references(corpus)
            own, references = (_step_tokens(settings, corpus, one) for one in (student, learner))
            steps = max(round(steps * own / references), 1)
        looks = max(steps // settings.compare.looks, 1)
        for seed in settings.compare.seeds:
            seeded = _trained_by(learner, seed=seed, steps=steps, look_every=looks)
            own = settings.model_validate(settings.model_dump() | {"student": seeded.model_dump()})
            found.append(Training(arm, seed, plan_student(own, corpus)))
    return found


def _learner(student: Student, arm: Arm) -> Student:
    """The student as it learns in an arm."""
    text = {"objective": "text"}
    if arm == "reference":
        return _trained_by(student, loss=text, learns="reference")
    return student if arm == "soft_labels" else _trained_by(student, loss=text)


def _trained_by(student: Student, **changes: Any) -> Student:
    return Student.model_validate(student.model_dump() | {"train": student.train.model_dump() | changes})


def _require_references(corpus: Corpus) -> None:
    if missing := corpus.table("traces", "train")["reference"].null_count:
        raise StudentError(
            f"{missing} rows of {corpus.reference} have no reference to learn from: leave `reference` out of "
            "compare.arms"
        )


def _step_tokens(settings: Config, corpus: Corpus, student: Student) -> float:
    """Mean tokens, prompt and completion, of a step: of the rows that the student trains on, in its own tokens, without
    thinking that it drops and rows that are too long for it. An epoch's last step may have fewer rows.
    """
    from distill_data.student.dataset import SoftLabelDataset

    labels, train = StudentLabels(corpus, student, settings.teacher), student.train
    table = labels.train(Path(settings.root))
    lengths = SoftLabelDataset(table, train.max_length, labels.kind.unlabelled).lengths
    steps = math.ceil(len(lengths) / (train.batch_size * train.gradient_accumulation))
    return float(lengths.sum()) / steps
