"""A round as jobs that are there already: a build in which the student answers, one that scores, and a training.

So a round is planned, resumed and paid once by what plans, resumes and pays builds and trainings.
"""

from __future__ import annotations

from pathlib import Path

from distill_data.build import BuildPlan, plan_build
from distill_data.config import Config, Validation
from distill_data.corpus.read import Corpus
from distill_data.errors import StudentError
from distill_data.filter_config import Filters
from distill_data.prompt_config import DatasetPrompts
from distill_data.prompts import PromptSet
from distill_data.rounds.answers import to_score
from distill_data.rounds_config import Rounds
from distill_data.student.engine import small_engine
from distill_data.student.job import StudentPlan, plan_student
from distill_data.student_config import Loss, Student
from distill_data.teacher_config import Sampling, SoftLabelSelection, Teacher

_NOTHING_DROPPED = Filters(truncated=False, unfinished_thinking=False, missing_answer=False)
_SMALLEST_LABELS = SoftLabelSelection(min_prob=1.0, max_support=1)  # nobody learns from what the student is sure of


def plan_answers(settings: Config, number: int, student: StudentPlan, asked: PromptSet) -> BuildPlan:
    """The build in which a trained student answers prompts: its folder's content is the model in its own teacher_id.

    Every round has a seed of its own.

    Raises:
        ModelError: the student's folder is not whole.
    """
    teacher = settings.teacher
    answering = teacher.model_copy(
        update={
            "model": str(student.folder),
            "revision": None,
            "quantization": None,
            "trust_remote_code": teacher.trust_remote_code or student.student.trust_remote_code,
            "sampling": _sampling(settings, number),
            "soft_labels": _SMALLEST_LABELS,
            "retry_truncated": None,
            "engine": small_engine(teacher.engine, student.folder),
        }
    )
    job = Config(
        name=settings.name,
        root=settings.root,
        prompts=settings.prompts,
        teacher=answering,
        storage=settings.storage,
    )
    return plan_build(job, asked)


def plan_scores(settings: Config, number: int, answers: BuildPlan, first: Corpus | None) -> BuildPlan:
    """The build in which the teacher scores what the student said, as the next version of NAME-rounds.

    Nothing of it is held out, judged or dropped: what the student says wrong is what it has to unlearn. `first` is the
    version whose training rows are scored too.

    Raises:
        TraceStoreError, CorpusError: what is to be scored cannot be read.
    """
    who = {"student": Path(answers.config.teacher.model).name, "round": number, "teacher_id": answers.store.teacher_id}
    labels = [source.label for source in settings.prompts]
    scored = to_score(answers, first, {label: dict(who) for label in labels})
    sources = [
        DatasetPrompts(source="dataset", path=who["student"], messages="messages", name=label) for label in labels
    ]
    job = Config(
        name=rounds_corpus(settings.name),
        root=settings.root,
        prompts=list(sources),
        teacher=_scoring(settings.teacher),
        filters=_NOTHING_DROPPED,
        validation=Validation(fraction=0.0),
        storage=settings.storage,
    )
    return plan_build(job, scored)


def plan_next_student(settings: Config, student: StudentPlan, corpus: Corpus) -> StudentPlan:
    """The student that begins with the weights of another one and trains on a round's version."""
    return plan_student(settings.model_copy(update={"student": _going_on(student, _rounds(settings))}), corpus)


def rounds_corpus(name: str) -> str:
    """The corpus of a config's rounds. One of its own: NAME and NAME@stable stay what the teacher said itself."""
    return f"{name}-rounds"


def _rounds(settings: Config) -> Rounds:
    if settings.rounds is None:
        raise StudentError("the config has no rounds: section: add one")
    return settings.rounds


def _sampling(settings: Config, number: int) -> Sampling:
    sampling = _rounds(settings).sampling
    return Sampling.model_validate(sampling.model_dump() | {"seed": sampling.seed + number})


def _going_on(before: StudentPlan, rounds: Rounds) -> Student:
    train = before.student.train
    changes = {
        "steps": rounds.steps or train.steps,  # from the second round on these are the round's own
        "learning_rate": rounds.learning_rate or train.learning_rate,
        "loss": Loss.model_validate(rounds.loss.model_dump()),
        "learns": "trace",
        "early_stopping": None,  # of a round's version nothing is held out
        "look_every": None,
    }
    return before.student.model_copy(
        update={"model": str(before.folder), "revision": None, "train": train.model_copy(update=changes)}
    )


def _scoring(teacher: Teacher) -> Teacher:
    return teacher.model_copy(update={"mode": "score", "sampling": Sampling(), "retry_truncated": None})
