"""Texts and their distributions over labels, as a classifier learns them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from distill_data.corpus.read import Corpus
from distill_data.errors import StudentError
from distill_data.student.dataset import too_long_error

NONE = -100  # the right label where none is known; as PyTorch's cross-entropy leaves it out


@dataclass(frozen=True)
class LabelledTexts:
    """N texts of a corpus; `probabilities` are the teacher's, float32 [N, L], `references` the right labels (int64 [N],
    NONE where the source has none), both in the order of `labels`.
    """

    labels: list[str]
    texts: list[str]
    probabilities: np.ndarray
    references: np.ndarray

    @cached_property
    def answers(self) -> np.ndarray:
        """The teacher's likeliest label: int64 [N]."""
        return self.probabilities.argmax(axis=1)


def labelled_texts(corpus: Corpus, split: str, rows: int | None = None) -> LabelledTexts:
    """The texts of a split, or the first `rows` of them: what the last user message says, without instructions.

    Raises:
        StudentError: the corpus has no labels, or a reference is none of them.
        CorpusError: a file cannot be read.
    """
    if not corpus.labels:
        raise StudentError(
            f"{corpus.reference} has no distributions over labels: build it with teacher.mode: classify, or set "
            "student.task: language_model"
        )
    traces = corpus.table("traces", split) if rows is None else corpus.head("traces", split, rows)
    flat = traces["label_probabilities"].combine_chunks().flatten().field("probability")
    return LabelledTexts(
        labels=corpus.labels,
        texts=[_asked(chat) for chat in traces["messages"].to_pylist()],
        probabilities=flat.to_numpy().reshape(-1, len(corpus.labels)),
        references=_references(traces["reference"], corpus),
    )


def _asked(chat: list[dict[str, str]]) -> str:
    return next(message["content"] for message in reversed(chat) if message["role"] == "user")


def _references(column: pa.ChunkedArray, corpus: Corpus) -> np.ndarray:
    numbers = {label: number for number, label in enumerate(corpus.labels)}
    found = column.to_pylist()
    if unknown := [reference for reference in found if reference is not None and reference not in numbers]:
        raise StudentError(
            f"{corpus.reference} has the reference {unknown[0]!r}, which is none of its labels: use "
            f"{', '.join(corpus.labels)} in the source, or leave reference: out"
        )
    return np.array([NONE if reference is None else numbers[reference] for reference in found], np.int64)


def _no_reference_error(texts: int) -> StudentError:
    return StudentError(
        f"student.train.learns is reference and none of {texts} texts has one: name the column with reference: in the "
        "source, or set student.train.learns: trace"
    )


class TextDataset(Dataset[dict[str, Any]]):
    """Texts in a tokenizer's tokens, one an item; longer ones than `max_length` are left out and counted, never cut.

    `rows` says which are there: int64 [texts]. The hard label of an item is the teacher's answer, or with `references`
    the right label, NONE where the source has none. Where a hard label is all that is learnt (`hard_only`), texts
    without one are left out and counted in `without_reference`.

    Raises:
        StudentError: no text is left, or none has a right label that is to be learnt.
    """

    def __init__(
        self,
        data: LabelledTexts,
        tokenizer: Any,
        max_length: int,
        *,
        references: bool = False,
        hard_only: bool = False,
    ):
        ids = tokenizer(data.texts)["input_ids"] if data.texts else []
        lengths = np.array([len(tokens) for tokens in ids], np.int64)
        fits = lengths <= max_length
        self.too_long = int((~fits).sum())
        if not fits.any():
            raise too_long_error(len(ids), max_length, int(lengths.min(initial=0)))
        targets = data.references if references else data.answers
        known = targets != NONE
        if not (fits & known).any():
            raise _no_reference_error(int(fits.sum()))
        self.rows = np.flatnonzero(fits & known if hard_only else fits)
        self.without_reference = int(fits.sum()) - len(self.rows)
        self.lengths = lengths[self.rows]
        self._ids = [ids[row] for row in self.rows]
        self._probabilities = torch.from_numpy(data.probabilities[self.rows])
        self._targets = torch.from_numpy(targets[self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "input_ids": self._ids[index],
            "probabilities": self._probabilities[index],
            "target": self._targets[index],
        }


class TextCollator:
    """Texts of a batch, padded on the right: input_ids and attention_mask int64 [B, T], probabilities float32 [B, L]
    and target_ids int64 [B].
    """

    def __init__(self, pad_token_id: int):
        self._pad = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch of some items of a TextDataset."""
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        filled = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.full(filled.shape, self._pad, dtype=torch.int64)
        ids[filled] = torch.tensor([token for row in rows for token in row["input_ids"]])
        return {
            "input_ids": ids,
            "attention_mask": filled.long(),
            "probabilities": torch.stack([row["probabilities"] for row in rows]),
            "target_ids": torch.stack([row["target"] for row in rows]),
        }
