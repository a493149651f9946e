"""What of a student can be checked before its teacher answers anything."""

from __future__ import annotations

from typing import Any

from distill_data.models import ModelSource, tokenizer_fingerprint
from distill_data.student_config import Student
from distill_data.teacher_config import Teacher


def check_student(student: Student, tokenizer: Any, source: ModelSource, teacher: Teacher) -> str:
    """The student's model is there and has room for the vocabulary that it learns in.

    An architecture is built to see; of a hub id or a folder, and of a teacher whose layers it takes, only the config
    is read.

    Args:
        student: the section `student`.
        tokenizer: the teacher's.
        source: where the teacher is.
        teacher: the section `teacher`.

    Raises:
        ConfigError, ModelError, StudentError: what does not fit.
    """
    if student.task == "classification":
        return _check_classifier(student, tokenizer, list(teacher.labels))
    from distill_data.student.own_tokens import Tokenizers
    from distill_data.student.vocabulary import own_tokenizer

    own = own_tokenizer(student, tokenizer_fingerprint(tokenizer))
    if own is None:
        return _check_model(student, tokenizer, source)
    Tokenizers(own, tokenizer, teacher)
    how = {"uld": "sorted probabilities (uld)", "text": "the teacher's text"}[student.train.loss.objective]
    return f"{_check_model(student, own, source)}, of a tokenizer of its own: learns from {how}"


def _check_classifier(student: Student, teachers: Any, labels: list[str]) -> str:
    """An architecture is built; of a hub id or a folder the weights are read too: a head may have to be made."""
    from distill_data.student.classifier import load_classifier
    from distill_data.student.vocabulary import load_own_tokenizer

    tokenizer = teachers if student.tokenizer == "teacher" else load_own_tokenizer(student)
    model = load_classifier(student, tokenizer, labels)
    return f"{type(model).__name__} of {model.num_parameters():,} parameters for {len(labels)} labels"


def _check_model(student: Student, tokenizer: Any, source: ModelSource) -> str:
    from distill_data.student.model import load_student, saved_vocabulary_size
    from distill_data.student.teacher_layers import teacher_depth
    from distill_data.student.vocabulary import check_vocabulary, vocabulary_size

    if isinstance(student.model, str):
        size = saved_vocabulary_size(student, tokenizer)
        check_vocabulary(size, len(tokenizer), -1)
        return f"{student.model}, vocabulary of {size:,} for {len(tokenizer):,} tokens"
    if student.model.from_teacher is not None:
        layers = student.model.from_teacher.layers
        depth = teacher_depth(source, layers, trust_remote_code=student.trust_remote_code)
        return f"{len(layers)} of the teacher's {depth} layers"
    model = load_student(student, tokenizer)
    size = vocabulary_size(model)
    check_vocabulary(size, len(tokenizer), -1)
    return f"{model.num_parameters():,} parameters, vocabulary of {size:,} for {len(tokenizer):,} tokens"
