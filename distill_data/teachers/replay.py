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
        if request.scored_token_ids is None:
            text = f"Let me see: {random.integers(100)} it is. Answer: {random.integers(4)}"
            ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
            cut = min(request.sampling.max_tokens, self.max_model_len - len(request.prompt_token_ids))
        else:
            ids, cut = request.token_ids[1:], self.max_model_len
        token_ids = np.array(ids[:cut], np.int32)
        top_ids, top_logprobs = self._distribution(token_ids, random)
        return Completion(
            request_id=request.request_id,
            token_ids=token_ids,
            finish_reason="stop" if len(token_ids) == len(ids) else "length",
            top_ids=top_ids,
            top_logprobs=top_logprobs,
            sampled_logprobs=top_logprobs[:, 0],
        )

    def _distribution(self, token_ids: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Halving probabilities over distinct tokens, the sampled one first."""
        width = min(self._teacher.soft_labels.max_support, self.vocab_size)
        top_ids = (token_ids[:, None] + np.arange(width, dtype=np.int32)) % self.vocab_size
        first = random.uniform(0.3, 0.9, size=(len(token_ids), 1))
        probabilities = np.concatenate([first, (1 - first) * 0.5 ** np.arange(1, width)], axis=1)
        return top_ids, np.log(probabilities).astype(np.float32)
