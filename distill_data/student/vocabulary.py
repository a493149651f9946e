"""Refuse a student without the teacher's vocabulary: distributions over other ids mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from distill_data.errors import ModelError, StudentError
from distill_data.models import tokenizer_fingerprint
from distill_data.student.forward import quiet_transformers
from distill_data.student_config import Student

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
ACROSS_TOKENIZERS = ("uld", "text")
# Forks of one vocabulary rename a few special tokens; another vocabulary differs nearly everywhere.
_SAME_VOCABULARY = 0.99


@dataclass(frozen=True)
class SavedVocabulary:
    """What a model on disk says of its tokens.

    `size` counts its ids, padding included, and `ends` are its EOS. `renamed` are the ids that are another token in the
    tokenizer that it will be saved with: by id, its own token (None where it has none) and the new one.
    """

    size: int
    renamed: dict[int, tuple[str | None, str]]
    ends: list[int]


def own_tokenizer(student: Student, teacher_tokenizer_sha256: str) -> Any | None:
    """The student's own tokenizer, None where it is the teacher's; only some objectives apply to another one.

    Raises:
        ModelError: the tokenizer cannot be loaded.
        StudentError: its fingerprint (`models.tokenizer_fingerprint`) is not the teacher's, and the objective needs the
            teacher's ids.
    """
    if student.tokenizer == "teacher":
        return None
    tokenizer = load_own_tokenizer(student)
    own, objective = tokenizer_fingerprint(tokenizer), student.train.loss.objective
    if own == teacher_tokenizer_sha256:
        return None
    if objective not in ACROSS_TOKENIZERS:
        raise StudentError(
            f"student.tokenizer {student.tokenizer!r} ({own[:12]}) is not the tokenizer of the teacher "
            f"({teacher_tokenizer_sha256[:12]}), and {objective} compares distributions over the same ids: set "
            "student.tokenizer: teacher, or student.train.loss.objective: uld (sorted probabilities) or text"
        )
    return tokenizer


def load_own_tokenizer(student: Student) -> Any:
    """The tokenizer that `student.tokenizer` names.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(student.tokenizer, trust_remote_code=student.trust_remote_code)
    except Exception as error:
        raise ModelError(
            f"student.tokenizer {student.tokenizer!r} cannot be loaded ({_one_line(error)}): "
            "give a folder or hub id with a tokenizer, or `teacher`"
        ) from error


def check_vocabulary(student_vocab_size: int, tokenizer_length: int, max_label_id: int) -> None:
    """Refuse a student without room for the teacher's ids; a vocabulary padded beyond the tokenizer is fine.

    Raises:
        StudentError: the tokenizer or the labels hold ids that the student does not have.
    """
    needed = max(tokenizer_length, max_label_id + 1)
    if student_vocab_size < needed:
        raise StudentError(
            f"the student has {student_vocab_size} token ids and the teacher's labels need {needed}: take a "
            f"student of the teacher's family, or set student.model.from_config.vocab_size: {needed}"
        )


def check_own_tokenizer(student: Student, folder: Path, teacher_tokenizer: Any) -> dict[int, tuple[str | None, str]]:
    """Refuse a model whose own tokenizer (in `folder`, if any) gives the teacher's ids other meanings.

    Returns:
        The few that it may: `SavedVocabulary.renamed`.

    Raises:
        StudentError: more than 1 in 100 of the ids that both have name other tokens.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return {}
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=student.trust_remote_code)
    own = {index: token for token, index in tokenizer.get_vocab().items()}
    teachers = {index: token for token, index in teacher_tokenizer.get_vocab().items()}
    shared = own.keys() & teachers.keys()
    other = [index for index in sorted(shared) if own[index] != teachers[index]]
    if len(other) > (1 - _SAME_VOCABULARY) * len(shared):
        raise StudentError(
            f"student.model {student.model!r} was trained with another vocabulary: id {other[0]} is "
            f"{own[other[0]]!r} there and {teachers[other[0]]!r} for the teacher ({len(other)} ids differ); "
            "soft labels need the teacher's vocabulary: take a student of the teacher's family"
        )
    return {index: (own.get(index), teachers[index]) for index in sorted(teachers) if own.get(index) != teachers[index]}


def vocabulary_size(model: Any) -> int:
    """How many token ids a model has embeddings for; padding beyond its tokenizer included."""
    return int(model.get_input_embeddings().weight.shape[0])


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
