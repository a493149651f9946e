"""A student job of a classifier: its tokenizer, its texts, its training and its measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_data.corpus.read import Corpus
from distill_data.student.labels import corpus_tokenizer
from distill_data.student_config import Student
from distill_data.teacher_config import Teacher

if TYPE_CHECKING:
    from distill_data.student.trainer import TrainProgress


def classifier_tokenizer(corpus: Corpus, student: Student, teacher: Teacher) -> Any:
    """The student's own tokenizer, or the teacher's, checked against the corpus.

    Raises:
        ModelError: it cannot be loaded.
        StudentError: the corpus was made with another one than the config's teacher has.
    """
    if student.tokenizer == "teacher":
        return corpus_tokenizer(corpus, teacher)
    from distill_data.student.vocabulary import load_own_tokenizer

    return load_own_tokenizer(student)


def train_on(
    corpus: Corpus, student: Student, teacher: Teacher, folder: Path, on_step: Callable[[TrainProgress], None]
) -> None:
    """Train the classifier on the corpus' training rows into a folder."""
    from distill_data.student.classifier_training import ClassifierJob, train_classifier
    from distill_data.student.label_texts import labelled_texts

    tokenizer = classifier_tokenizer(corpus, student, teacher)
    train_classifier(ClassifierJob(student, labelled_texts(corpus, "train"), tokenizer, folder), on_step)


def measure_on(corpus: Corpus, student: Student, teacher: Teacher, folder: Path, device: Any) -> dict[str, Any]:
    """What the classifier in a folder is on the first held-out rows, as it was before training and as it is now."""
    from distill_data.student.classifier import load_classifier, load_saved_classifier
    from distill_data.student.classifier_evaluation import evaluate_classifier
    from distill_data.student.label_texts import labelled_texts

    held_out = labelled_texts(corpus, "validation", student.evaluate.max_traces)
    tokenizer = classifier_tokenizer(corpus, student, teacher)
    models = {
        "before": lambda: load_classifier(student, tokenizer, held_out.labels),
        "after": lambda: load_saved_classifier(folder, trust_remote_code=student.trust_remote_code),
    }
    limits = (student.evaluate, student.train.max_length)
    return {
        name: asdict(evaluate_classifier(load().to(device), held_out, tokenizer, *limits))
        for name, load in models.items()
    }
