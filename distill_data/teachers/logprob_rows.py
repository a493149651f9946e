"""One request's log-probabilities as packed arrays, from what vLLM's engine core sends step by step.

vLLM's own frontend turns every kept log-probability into four Python objects (14 us a token at 64 kept ones); this
takes its place there and appends the rows of each step to byte arrays, which grow in place. Only names that vLLM gives
its output are used here, no import.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ID, _LOGPROB = np.dtype(np.int32), np.dtype(np.float32)


class LogprobRows:
    """Stands in for a request's `vllm.v1.engine.logprobs.LogprobsProcessor`.

    `width` is K: rows are [token, likeliest 1 ... likeliest K]. The frontend hands this object out as the request's
    `logprobs` and `prompt_logprobs`.
    """

    cumulative_logprob = None
    prompt_token_id_logprobs = None

    def __init__(self, width: int) -> None:
        self._columns = width + 1
        self._ids = bytearray()  # of int32
        self._logprobs = bytearray()  # of float32

    @property
    def logprobs(self) -> LogprobRows:
        """Itself, as what the frontend hands out."""
        return self

    prompt_logprobs = logprobs

    def update_from_output(self, output: Any) -> None:
        """Take the rows of one `EngineCoreOutput`: of tokens that were sampled, or of a prompt that was scored."""
        if (rows := output.new_logprobs) is not None:
            self._append(rows.logprob_token_ids, rows.logprobs)
        if (tensors := output.new_prompt_logprobs_tensors) is not None:
            self._append(tensors.logprob_token_ids.numpy(), tensors.logprobs.numpy())

    def arrays(self, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int32 [T, K + 1] and log-probabilities float32 [T, K + 1] from row `start` on.

        They are views: no more rows can come while they are in use.
        """
        ids = np.frombuffer(self._ids, _ID).reshape(-1, self._columns)
        return ids[start:], np.frombuffer(self._logprobs, _LOGPROB).reshape(-1, self._columns)[start:]

    def first_row(self) -> tuple[np.ndarray, np.ndarray]:
        """Token ids int32 [W] and log-probabilities float32 [W] of a request of one token: vLLM pads those of looked up
        tokens to the longest list of the batch.
        """
        return np.frombuffer(self._ids, _ID), np.frombuffer(self._logprobs, _LOGPROB)

    def _append(self, ids: np.ndarray, logprobs: np.ndarray) -> None:
        """Half the time of assigning to a slice of an array, which matters at a call per token."""
        self._ids.extend(ids if ids.dtype is _ID else ids.astype(_ID))
        self._logprobs.extend(logprobs if logprobs.dtype is _LOGPROB else logprobs.astype(_LOGPROB))
