"""A student job: where the student of a config and a corpus version goes, train it there, measure it there.

A student is named by its corpus version and by a hash of what decides its weights; it appears under that name only
when it is whole, so running again finds it and does nothing.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_data.config import Config
from distill_data.corpus.read import Corpus
from distill_data.errors import StudentError
from distill_data.evaluate_config import OF_LABELS, Evaluate
from distill_data.identity import digest
from distill_data.models import model_fingerprint, resolve_model, tokenizer_fingerprint
from distill_data.parquet import place
from distill_data.student import ranks
from distill_data.student.classifier_job import measure_on, train_on
from distill_data.student.labels import StudentLabels, teacher_source
from distill_data.student.result import ClassifierResult, EvaluationResult
from distill_data.student_config import EXECUTION, Student

if TYPE_CHECKING:
    from distill_data.student.trainer import TrainProgress
    from distill_data.student.training import TrainJob


@dataclass(frozen=True)
class StudentPlan:
    """A student before it is trained."""

    config: Config
    student: Student
    corpus: Corpus
    folder: Path

    @property
    def is_trained(self) -> bool:
        """Whether the whole student is there already."""
        return (self.folder / "training.json").is_file()

    @property
    def is_evaluated(self) -> bool:
        """Whether it has been measured on this corpus version's held-out rows with these settings."""
        return self.evaluation_file.is_file()

    @property
    def has_held_out(self) -> bool:
        """Whether the corpus holds out anything to measure on."""
        return "validation" in self.corpus.splits

    @property
    def evaluation_file(self) -> Path:
        """Where the measurement of this corpus version goes, under these evaluation settings."""
        settings = {
            "corpus": self.corpus.manifest.digest,
            "evaluate": self.student.evaluate.model_dump(include=OF_LABELS),
        }
        return self.folder / f"evaluation-{digest(settings)[:8]}.json"


@dataclass(frozen=True)
class StudentReport:
    """What is known of a trained student; `before` and `after` are None where nothing is held out."""

    name: str
    path: str
    corpus: str
    created: bool
    steps: int
    parameters: int
    traces: int
    too_long: int
    tokens: int
    tokens_per_second: float
    seconds: float
    first_loss: float
    last_loss: float
    before: EvaluationResult | ClassifierResult | None
    after: EvaluationResult | ClassifierResult | None


def plan_student(settings: Config, corpus: Corpus) -> StudentPlan:
    """Name the student of a config on a corpus version; loads nothing heavy.

    Raises:
        StudentError: the config has no student, or one that cannot learn from these labels.
        ModelError: its model cannot be found.
    """
    student = settings.student
    if student is None:
        raise StudentError("the config has no student: section: add one")
    if corpus.draws is not None and (objective := student.train.loss.objective) not in ("forward_kl", "text"):
        raise StudentError(
            f"{corpus.reference} has sampled soft labels, which do not estimate {objective}: set "
            "student.train.loss.objective: forward_kl"
        )
    unlike: Any = {"evaluate": True, "publish": True, "train": EXECUTION}
    if student.train.early_stopping is not None or student.train.look_every is not None:  # at what `evaluate` says
        unlike = {"publish": True, "train": EXECUTION, "evaluate": Evaluate.model_fields.keys() - OF_LABELS}
    ingredients = student.model_dump(exclude=unlike) | {"corpus": corpus.manifest.digest}
    if (own := _own_tokenizer(student, corpus.manifest.tokenizer["sha256"])) is not None:
        ingredients["tokenizer"] = tokenizer_fingerprint(own)
    if isinstance(student.model, str):
        ingredients["model"] = model_fingerprint(resolve_model(student.model, student.revision))
    elif student.model.from_teacher is not None:
        ingredients["teacher"] = model_fingerprint(teacher_source(settings.teacher))
    name = f"{corpus.name}-v{corpus.version}-{digest(ingredients)[:8]}"
    return StudentPlan(settings, student, corpus, Path(settings.root) / "students" / name)


def train(plan: StudentPlan, on_step: Callable[[TrainProgress], None]) -> None:
    """Train the student in a folder beside its own, then give it its name.

    Two trainers of one student take turns, and the second one finds it trained. Processes that `accelerate launch`
    started are one trainer: all of them call this.

    Raises:
        StudentError: student and corpus do not fit together; see `training.train_student`.
    """
    from distill_data.student.card import write_student_card
    from distill_data.student.checkpoints import remove_checkpoints
    from distill_data.student.training import train_student

    def make(folder: Path) -> None:
        if not (folder / "training.json").is_file():  # or a killed one was all but named
            if plan.student.task == "classification":
                train_on(plan.corpus, plan.student, plan.config.teacher, folder, on_step)
            else:
                train_student(_job(plan, folder), on_step)
        if not ranks.is_main():
            return
        remove_checkpoints(folder)  # of one that was killed when it was done
        write_student_card(plan, folder)
        origin = {"corpus": plan.corpus.reference, "digest": plan.corpus.manifest.digest}
        (folder / "corpus.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")

    ranks.make_together(plan.folder, lambda: plan.is_trained, make)


def train_and_measure(plan: StudentPlan, on_step: Callable[[TrainProgress], None]) -> StudentReport | None:
    """Train and measure without a flow, as one of the processes that `accelerate launch` started; the main one reports.

    Raises:
        StudentError: as `train`.
    """
    created = not plan.is_trained
    train(plan, on_step)
    if not ranks.is_main():
        return None
    if plan.has_held_out and not plan.is_evaluated:
        evaluate(plan)
    return report_student(plan, created)


def _job(plan: StudentPlan, folder: Path) -> TrainJob:
    from distill_data.student.training import TrainJob

    labels = _labels(plan)
    train, rows = plan.student.train, plan.student.evaluate.max_traces
    looks = (train.early_stopping is not None or train.look_every is not None) and plan.has_held_out
    return TrainJob(
        student=plan.student,
        labels=labels.train(folder),
        tokenizer=labels.tokenizer,
        output=folder,
        kind=labels.kind,
        held_out=labels.held_out(rows) if looks else None,
        references=labels.held_out_references(rows) if looks and train.look_every is not None else None,
        teacher=teacher_source(plan.config.teacher),
    )


def _labels(plan: StudentPlan) -> StudentLabels:
    return StudentLabels(plan.corpus, plan.student, plan.config.teacher)


def evaluate(plan: StudentPlan) -> None:
    """Measure the student on the held-out rows, as it was before training and as it is now.

    Raises:
        StudentError: the student is not trained yet, or nothing is held out.
    """
    import torch

    from distill_data.student.evaluation import evaluate_student
    from distill_data.student.model import load_saved_student, load_student

    if not plan.is_trained:
        raise StudentError(f"{plan.folder} is not there: run `distill-data train` first")
    if not plan.has_held_out:
        raise StudentError(
            f"{plan.corpus.reference} holds nothing out: set validation.fraction above 0 and build again"
        )
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    if plan.student.task == "classification":
        found = measure_on(plan.corpus, plan.student, plan.config.teacher, plan.folder, device)
        return _write_measured(plan, found)
    settings, shown = plan.student.evaluate, _labels(plan)
    held_out = shown.held_out(settings.max_traces)

    def measured_on_held_out(model: Any) -> dict[str, Any]:
        max_length = plan.student.train.max_length
        return asdict(evaluate_student(model.to(device), held_out.labels, settings, max_length, held_out.kind))

    untrained = load_student(plan.student, shown.tokenizer, teacher_source(plan.config.teacher))
    before = measured_on_held_out(untrained)
    del untrained
    gc.collect()  # modules hold themselves in cycles, and two big students do not fit
    trained = load_saved_student(plan.folder, trust_remote_code=plan.student.trust_remote_code)
    _write_measured(plan, {"before": before, "after": measured_on_held_out(trained)})


def _write_measured(plan: StudentPlan, found: dict[str, Any]) -> None:
    measured = {"corpus": plan.corpus.reference, **found}
    place((json.dumps(measured, indent=2) + "\n").encode(), plan.evaluation_file)


def report_student(plan: StudentPlan, created: bool) -> StudentReport:
    """What the student's folder says."""
    training = json.loads((plan.folder / "training.json").read_text(encoding="utf-8"))
    measured: dict[str, Any] = {}
    if plan.is_evaluated:
        measured = json.loads(plan.evaluation_file.read_text(encoding="utf-8"))
    kind = ClassifierResult if plan.student.task == "classification" else EvaluationResult
    results: Any = {key: kind(**measured[key]) if key in measured else None for key in ("before", "after")}
    curve = training["loss_curve"]
    known = ("steps", "parameters", "traces", "too_long", "tokens", "tokens_per_second", "seconds")
    return StudentReport(
        name=plan.folder.name,
        path=str(plan.folder),
        corpus=plan.corpus.reference,
        created=created,
        first_loss=curve[0]["loss"],
        last_loss=curve[-1]["loss"],
        before=results["before"],
        after=results["after"],
        **{key: training[key] for key in known},
    )


def _own_tokenizer(student: Student, teacher_tokenizer_sha256: str) -> Any | None:
    """The tokenizer of a student that has another one than the teacher."""
    if student.tokenizer == "teacher":
        return None  # without PyTorch
    from distill_data.student.vocabulary import load_own_tokenizer, own_tokenizer

    if student.task == "classification":
        return load_own_tokenizer(student)
    return own_tokenizer(student, teacher_tokenizer_sha256)
