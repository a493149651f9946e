"""The replay teacher: a deterministic stand-in with the real schema and the model's own tokenizer, without the model.

It serves dry runs and tests that need thousands of rows; its traces have their own teacher_id and are never mixed
with a model's.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from distill_data import teacher_config
from distill_data.teachers.base import Completion, Request

_CONTEXT = 1 << 20
_WIDTH = 64  # tokens with a probability, of those that sampled soft labels are drawn from


class ReplayTeacher:
    """Finishes `max_num_seqs` requests a step; the same request always gets the same completion."""

    def __init__(self, tokenizer: Any, teacher: teacher_config.Teacher) -> None:
        self.tokenizer = tokenizer
        self.max_model_len = teacher.engine.max_model_len or _CONTEXT
        self.vocab_size = len(tokenizer)
        self._teacher = teacher
        self._queue: deque[Request] = deque()

    def add(self, request: Request) -> None:
        """Queue a request; nothing is ever refused."""
        self._queue.append(request)

    def step(self) -> list[Completion]:
        """Finish the next requests."""
        batch = min(len(self._queue), self._teacher.engine.max_num_seqs)
        return [self._replay(self._queue.popleft()) for _ in range(batch)]

    def tokens_in_flight(self) -> int:
        """None: a request is finished in one step."""
        return 0

    def _replay(self, request: Request) -> Completion:
        random = np.random.default_rng(request.seed)
        if request.label_token_ids is not None:
            return _labels(request, random)
        if request.scored_token_ids is None:
            text = f"Let me see: {random.integers(100)} it is. Answer: {random.integers(4)}"
            ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
            cut = min(request.sampling.max_tokens, self.max_model_len - len(request.prompt_token_ids))
        else:
            ids, cut = request.token_ids[1:], self.max_model_len
        token_ids = np.array(ids[:cut], np.int32)
        top_ids, top_logprobs = self._distribution(token_ids, random)
        sampled_logprobs = top_logprobs[:, 0]
        if self._teacher.soft_labels.kind == "sampled":
            ranks = _systematic_draws(top_logprobs, self._teacher.soft_labels.draws, random)
            top_ids, top_logprobs = (np.take_along_axis(whole, ranks, axis=1) for whole in (top_ids, top_logprobs))
        return Completion(
            request_id=request.request_id,
            token_ids=token_ids,
            finish_reason="stop" if len(token_ids) == len(ids) else "length",
            top_ids=top_ids,
            top_logprobs=top_logprobs,
            sampled_logprobs=sampled_logprobs,
        )

    def _distribution(self, token_ids: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Halving probabilities over distinct tokens, the sampled one first and likeliest."""
        kept = self._teacher.soft_labels
        width = min(_WIDTH if kept.kind == "sampled" else kept.max_support, self.vocab_size)
        top_ids = (token_ids[:, None] + np.arange(width, dtype=np.int32)) % self.vocab_size
        first = np.maximum(
            random.uniform(0.3, 0.9, size=(len(token_ids), 1)), 0.34
        )  # the next one has half of the rest
        probabilities = np.concatenate([first, (1 - first) * 0.5 ** np.arange(1, width)], axis=1)
        return top_ids, np.log(probabilities).astype(np.float32)


def _labels(request: Request, random: np.random.Generator) -> Completion:
    """Some log-probability of every token of every label."""
    token_ids = np.array([token for tokens in request.label_token_ids or [] for token in tokens], np.int32)
    none = np.empty((len(token_ids), 0), np.float32)
    logprobs = -random.exponential(2.0, len(token_ids)).astype(np.float32)
    return Completion(request.request_id, token_ids, "stop", none.astype(np.int32), none, logprobs)


def _systematic_draws(logprobs: np.ndarray, draws: int, random: np.random.Generator) -> np.ndarray:
    """Ranks of the drawn tokens, ascending: int [T, draws]; see `vllm_draws.systematic_draws`."""
    points = (np.arange(draws) + random.uniform(size=(len(logprobs), 1))) / draws
    edges = np.exp(logprobs).cumsum(axis=1)[:, :-1]  # the last token has what is left
    return (points[:, :, None] >= edges[:, None, :]).sum(axis=2)
