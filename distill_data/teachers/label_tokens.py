"""The tokens of labels, and what a teacher has to be asked to learn the log-probability of each of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np

from distill_data import teacher_config
from distill_data.errors import ConfigError

AT_ONCE = 128  # token ids that vLLM looks up in one request


def label_token_ids(teacher: teacher_config.Teacher, tokenizer: Any) -> list[list[int]]:
    """Every label's words as the teacher's tokens, in the config's order.

    Raises:
        ConfigError: a label has no tokens, or begins with all tokens of another one, so that saying the second would
            count for the first too.
    """
    words = list(teacher.labels.values())
    ids = [list(tokens) for tokens in tokenizer(words, add_special_tokens=False)["input_ids"]]
    names = dict(zip(teacher.labels, ids, strict=True))
    if empty := [name for name, tokens in names.items() if not tokens]:
        raise ConfigError(f"teacher.labels.{empty[0]} has no tokens in the teacher's vocabulary: give it other words")
    for (shorter, begin), (longer, tokens) in permutations(names.items(), 2):
        if tokens[: len(begin)] == begin:
            raise ConfigError(
                f"teacher.labels.{longer} begins with all tokens of teacher.labels.{shorter}: give one of them other "
                "words"
            )
    return ids


class LabelLookup:
    """The labels as a tree of tokens: what to ask after which beginning, and where the answers belong.

    Labels that begin alike share what is asked about their common tokens, and labels of one token each are one
    question. The log-probabilities of all tokens, label after label, are `lookup.flat(answers)`.
    """

    def __init__(self, labels: list[list[int]]) -> None:
        self._labels = labels
        after: dict[tuple[int, ...], list[int]] = {}
        for tokens in labels:
            for place, token in enumerate(tokens):
                following = after.setdefault(tuple(tokens[:place]), [])
                if token not in following:
                    following.append(token)
        self.token_ids = np.array([token for tokens in labels for token in tokens], np.int32)
        self.questions = list(_cut(after))
        """(beginning, tokens that may follow): the first one is about the prompt alone."""

    def flat(self, answers: list[np.ndarray]) -> np.ndarray:
        """Log-probabilities of all labels' tokens, float32 [T], from those of each question's tokens."""
        known = {
            (beginning, token): logprob
            for (beginning, tokens), logprobs in zip(self.questions, answers, strict=True)
            for token, logprob in zip(tokens, logprobs.tolist(), strict=True)
        }
        found = [known[tuple(tokens[:place]), token] for tokens in self._labels for place, token in enumerate(tokens)]
        return np.array(found, np.float32)


def _cut(after: dict[tuple[int, ...], list[int]]) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    for beginning, tokens in after.items():
        for start in range(0, len(tokens), AT_ONCE):
            yield beginning, tokens[start : start + AT_ONCE]
