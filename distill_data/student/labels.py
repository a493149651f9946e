"""What a student is shown: a version's rows, without thinking that it does not learn, in tokens that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from distill_data.corpus.read import Corpus
from distill_data.errors import StudentError
from distill_data.mapped import mapped_table
from distill_data.models import ModelSource, load_tokenizer, resolve_model, tokenizer_fingerprint
from distill_data.records import SOFT_LABELS_SCHEMA
from distill_data.student.label_kind import HeldOut, LabelKind
from distill_data.student.thinking import behind_closed_thought, closing_token, cut_thinking, opened_by_prompt
from distill_data.student_config import Student
from distill_data.teacher_config import Teacher

if TYPE_CHECKING:
    from distill_data.student.own_tokens import Tokenizers

_BATCH_ROWS = 1024
_TEXT = LabelKind(None, "cross_entropy", "nothing")
_TEXT_COLUMNS = ["messages", "finish_reason"]


class StudentLabels:
    """The rows of a corpus version as one student learns them.

    `tokenizer` is the one that the student is saved with: the teacher's, or its own.

    Raises:
        ModelError: a tokenizer cannot be loaded.
        StudentError: the corpus was made with another tokenizer than that of the config's teacher, or the student
            cannot learn from it.
    """

    def __init__(self, corpus: Corpus, student: Student, teacher: Teacher):
        self._corpus, self._train, self._tags = corpus, student.train, teacher.reasoning
        teachers = corpus_tokenizer(corpus, teacher)
        self._references = student.train.learns == "reference"
        self._own = _own_tokenizers(student, teachers, teacher)
        self.tokenizer: Any = teachers if self._own is None else self._own.own
        self._learnt = _thinking_cut(student, teachers, teacher, self._own)

    @property
    def kind(self) -> LabelKind:
        """How what the student learns from is to be read."""
        return _TEXT if self._references else self._teachers_kind

    @property
    def _teachers_kind(self) -> LabelKind:
        loss = self._train.loss
        if self._own is None:
            return LabelKind(self._corpus.draws, loss.unlabelled)
        if loss.objective == "text":
            return _TEXT
        return LabelKind(None, "pass", "ranks")

    def train(self, folder: Path) -> pa.Table:
        """All training rows, of SOFT_LABELS_SCHEMA, in a nameless file of `folder` that is mapped into memory.

        Raises:
            CorpusError: a file cannot be read or laid out.
        """
        if self._own is None and not self._references:
            return self._corpus.mapped("soft_labels", "train", folder, self._learnt)
        traces = self._corpus.mapped("traces", "train", folder)
        batches = (
            batch.cast(SOFT_LABELS_SCHEMA) for batch in self._corpus.batches("soft_labels", "train", _BATCH_ROWS)
        )
        return mapped_table(SOFT_LABELS_SCHEMA, self._shown(traces, batches, self._references), folder)

    def held_out(self, rows: int) -> HeldOut:
        """What the teacher said in the first held-out rows, at most `rows`.

        Raises:
            CorpusError: a file cannot be read.
        """
        return HeldOut(self._head(rows, references=False), self._teachers_kind)

    def held_out_references(self, rows: int) -> HeldOut | None:
        """The references of the same rows; None where one has none.

        Raises:
            CorpusError: a file cannot be read.
        """
        if self._corpus.head("traces", "validation", rows)["reference"].null_count:
            return None
        return HeldOut(self._head(rows, references=True), _TEXT)

    def _head(self, rows: int, *, references: bool) -> pa.Table:
        labels = self._corpus.head("soft_labels", "validation", rows).cast(SOFT_LABELS_SCHEMA)
        traces = self._corpus.head("traces", "validation", rows)
        return pa.Table.from_batches(self._shown(traces, labels.to_batches(), references), SOFT_LABELS_SCHEMA)

    def _shown(self, traces: pa.Table, batches: Iterable[pa.RecordBatch], references: bool) -> Iterator[pa.RecordBatch]:
        """Rows in the student's tokens: what the teacher said, or their references."""
        from distill_data.student.own_tokens import in_own_tokens
        from distill_data.student.reference_text import with_references

        done = 0
        for batch in batches:
            texts = traces.slice(done, len(batch))
            done += len(batch)
            learnt = batch if references else self._learnt(batch)
            if self._own is not None:
                aligned = self._train.loss.objective == "uld" and not references
                learnt = in_own_tokens(texts.select(_TEXT_COLUMNS), batch, learnt, self._own, aligned=aligned)
            if references:
                learnt = with_references(learnt, self._answers(learnt, texts), self.tokenizer)
            yield learnt

    def _answers(self, prompts: pa.RecordBatch, texts: pa.Table) -> list[str | None]:
        """The references; behind a prompt that ends in an open thought, a closed one first."""
        opened = opened_by_prompt(prompts, self.tokenizer, self._tags.open_tag).tolist()
        return [
            behind_closed_thought(text, self._tags.close_tag) if text is not None and thinks else text
            for text, thinks in zip(texts["reference"].to_pylist(), opened, strict=True)
        ]


def teacher_source(teacher: Teacher) -> ModelSource:
    """Where the teacher's model points."""
    return resolve_model(teacher.model, teacher.revision)


def corpus_tokenizer(corpus: Corpus, teacher: Teacher) -> Any:
    """The tokenizer that the corpus' ids belong to, checked against the corpus.

    Raises:
        StudentError: the config's teacher has another tokenizer than the corpus was made with.
    """
    tokenizer = load_tokenizer(teacher_source(teacher), trust_remote_code=teacher.trust_remote_code)
    if tokenizer_fingerprint(tokenizer) != corpus.manifest.tokenizer["sha256"]:
        raise StudentError(
            f"{corpus.reference} was made with another tokenizer than that of {teacher.model}: set "
            "teacher.model to the corpus' teacher, or build a corpus with this one"
        )
    return tokenizer


def _own_tokenizers(student: Student, teachers: Any, teacher: Teacher) -> Tokenizers | None:
    """Both tokenizers, where the student's is another one than the teacher's."""
    from distill_data.student.own_tokens import Tokenizers
    from distill_data.student.vocabulary import own_tokenizer

    own = own_tokenizer(student, tokenizer_fingerprint(teachers))
    return None if own is None else Tokenizers(own, teachers, teacher)


def _thinking_cut(
    student: Student, tokenizer: Any, teacher: Teacher, own: Tokenizers | None
) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """What becomes of soft labels because of `thinking`, for a student whose template may open thoughts."""
    how = student.train.thinking
    if how == "train":
        return lambda batch: batch
    closing, open_tag = closing_token(tokenizer, teacher.reasoning.close_tag), teacher.reasoning.open_tag

    def opened(batch: pa.RecordBatch) -> np.ndarray:
        if own is not None:
            return np.full(len(batch), own.opens_thought)
        return opened_by_prompt(batch, tokenizer, open_tag)

    return lambda batch: cut_thinking(batch, closing, how, opened(batch))
