"""What of a student can be checked before its teacher answers anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill_data.models import ModelSource, tokenizer_fingerprint
from distill_data.student_config import Student, Train
from distill_data.teacher_config import Teacher

if TYPE_CHECKING:
    from distill_data.student.vocabulary import SavedVocabulary

_NAMED = 5


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
    from distill_data.student.thinking import closing_token
    from distill_data.student.vocabulary import own_tokenizer

    if student.train.thinking != "train":
        closing_token(tokenizer, teacher.reasoning.close_tag)
    own = own_tokenizer(student, tokenizer_fingerprint(tokenizer))
    how = f"learns from {_learnt(student.train)}"
    if own is None:
        return f"{_check_model(student, tokenizer, source)}; the teacher's tokenizer: {how}"
    Tokenizers(own, tokenizer, teacher)
    return f"{_check_model(student, own, source)}; a tokenizer of its own: {how}"


def _learnt(train: Train) -> str:
    if train.learns == "reference":
        return "the sources' references"
    if train.loss.kl == 0:
        return "the teacher's text"
    objective = train.loss.objective
    return "sorted probabilities (uld)" if objective == "uld" else f"soft labels ({objective})"


def _check_classifier(student: Student, teachers: Any, labels: list[str]) -> str:
    """An architecture is built; of a hub id or a folder the weights are read too: a head may have to be made."""
    from distill_data.student.classifier import load_classifier
    from distill_data.student.vocabulary import load_own_tokenizer

    tokenizer = teachers if student.tokenizer == "teacher" else load_own_tokenizer(student)
    model = load_classifier(student, tokenizer, labels)
    return f"{type(model).__name__} of {model.num_parameters():,} parameters for {len(labels)} labels"


def _check_model(student: Student, tokenizer: Any, source: ModelSource) -> str:
    from distill_data.student.model import load_student, saved_vocabulary
    from distill_data.student.teacher_layers import teacher_depth
    from distill_data.student.vocabulary import check_vocabulary, vocabulary_size

    if isinstance(student.model, str):
        saved = saved_vocabulary(student, tokenizer)
        check_vocabulary(saved.size, len(tokenizer), -1)
        sizes = f"vocabulary of {saved.size:,} for {len(tokenizer):,} tokens"
        return "; ".join([f"{student.model}, {sizes}", *_new_meanings(saved, tokenizer)])
    if student.model.from_teacher is not None:
        layers = student.model.from_teacher.layers
        depth = teacher_depth(source, layers, trust_remote_code=student.trust_remote_code)
        return f"{len(layers)} of the teacher's {depth} layers"
    model = load_student(student, tokenizer)
    size = vocabulary_size(model)
    check_vocabulary(size, len(tokenizer), -1)
    return f"{model.num_parameters():,} parameters, vocabulary of {size:,} for {len(tokenizer):,} tokens"


def _new_meanings(saved: SavedVocabulary, tokenizer: Any) -> list[str]:
    """Which of a model's ids mean something else from now on: some special tokens of a fork, and the end of a text."""
    told = []
    if saved.renamed:
        first = [
            f"{token} {new!r} is new" if old is None else f"{token} {old!r} becomes {new!r}"
            for token, (old, new) in list(saved.renamed.items())[:_NAMED]
        ]
        more = ["…"] if len(saved.renamed) > _NAMED else []
        told.append(f"{len(saved.renamed):,} ids are other tokens to it: {', '.join([*first, *more])}")
    if saved.ends and tokenizer.eos_token_id not in saved.ends:
        old = ", ".join(map(str, saved.ends))
        told.append(f"it will end with {tokenizer.eos_token_id} {tokenizer.eos_token!r}, not with EOS {old}")
    return told
