"""What a teacher is: something that takes requests, steps, and hands back finished completions with distributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from distill_data.teacher_config import Sampling


@dataclass(frozen=True)
class Request:
    """One trace to generate; with `scored_token_ids` one that exists and is scored by teacher forcing; with
    `label_token_ids` the labels whose log-probabilities are looked up.
    """

    request_id: str
    prompt_token_ids: list[int]
    seed: int
    sampling: Sampling
    scored_token_ids: list[int] | None = None
    label_token_ids: list[list[int]] | None = None

    @property
    def token_ids(self) -> list[int]:
        """All that the teacher is given to read."""
        return self.prompt_token_ids + (self.scored_token_ids or [])


@dataclass(frozen=True)
class Completion:
    """One finished request: T completion tokens and K tokens of the distribution at each of them.

    These are the likeliest, likeliest first, or, for sampled soft labels, K draws, equal ones side by side. Of labels
    the tokens are those of all labels, one label after the other, and K is 0.
    Log-probabilities are natural, normalised over the full vocabulary, before temperature.
    `finish_reason` is the engine's own: `stop`, `length`, or what else ended it, then without tokens.
    """

    request_id: str
    token_ids: np.ndarray  # int32 [T], EOS included
    finish_reason: str
    top_ids: np.ndarray  # int32 [T, K]
    top_logprobs: np.ndarray  # float32 [T, K]
    sampled_logprobs: np.ndarray  # float32 [T]


class RequestRefused(Exception):
    """The engine will not take one request; the reason is a trace error name and a detail."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(f"{error}: {detail}")
        self.error = error
        self.detail = detail


class Teacher(Protocol):
    """A running teacher. Not thread-safe: one worker owns it."""

    tokenizer: Any
    max_model_len: int
    vocab_size: int  # of the model's output, which may be padded beyond the tokenizer

    def add(self, request: Request) -> None:
        """Queue a request.

        Raises:
            RequestRefused: this request cannot be run; others are not affected.
        """
        ...

    def step(self) -> list[Completion]:
        """Advance every running request and return those that finished."""
        ...

    def tokens_in_flight(self) -> int:
        """Tokens produced so far for requests that have not finished; a watchdog sees by it that the engine lives."""
        ...


def check_ids(token_ids: list[int], vocab_size: int) -> None:
    """Raises RequestRefused where there are no ids, or one that the model does not have."""
    if not token_ids:
        raise RequestRefused("empty_prompt", "the rendered prompt has no tokens")
    if max(token_ids) >= vocab_size:
        raise RequestRefused("token_out_of_vocabulary", f"token id {max(token_ids)} with a vocabulary of {vocab_size}")
