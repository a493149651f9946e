"""What goes to a server's completions API and what comes back, as arrays: token ids both ways, never text.

The fields beyond OpenAI's are vLLM's: https://docs.vllm.ai/en/stable/serving/openai_compatible_server.html.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from distill_data.errors import ModelError
from distill_data.teachers.base import Completion, Request

TOKENS_PER_CHUNK = 32  # of a stream: often enough to see that a server lives, seldom enough to cost it nothing
_TOKEN_ID = "token_id:"  # what a token's name begins with


def generation_body(request: Request, model: str, width: int, room: int) -> dict[str, Any]:
    """What asks for a completion, streamed; `width` is K, and `room` the context's tokens behind the prompt."""
    sampling = request.sampling
    return {
        "model": model,
        "prompt": request.prompt_token_ids,
        "max_tokens": min(sampling.max_tokens, room),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "stop_token_ids": sampling.stop_token_ids,
        "seed": request.seed,
        "logprobs": width,
        **_NOTHING_OF_THE_SERVERS_OWN,
        **_IDS,
        "stream": True,
        "stream_interval": TOKENS_PER_CHUNK,
    }


_NOTHING_OF_THE_SERVERS_OWN = {  # a model's generation_config.json may say otherwise
    "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
}  # fmt: skip
_IDS = {"return_token_ids": True, "return_tokens_as_token_ids": True, "skip_special_tokens": False}


def scoring_body(request: Request, model: str, width: int) -> dict[str, Any]:
    """What asks how likely every token of prompt and completion was; the one token sampled is in vain."""
    return {
        "model": model,
        "prompt": request.token_ids,
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": width,
        **_IDS,
    }


def label_body(token_ids: list[int], model: str, labels: list[int]) -> dict[str, Any]:
    """What asks how likely each of some tokens is after these."""
    return {
        "model": model,
        "prompt": token_ids,
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": len(labels),
        "logprob_token_ids": labels,
        **_IDS,
    }


class StreamedRows:
    """A completion that comes in chunks; `tokens` counts those that are here."""

    def __init__(self, width: int) -> None:
        self.tokens = 0
        self.finish_reason: str | None = None
        self._width = width
        self._pieces: list[tuple[np.ndarray, ...]] = []

    def begin(self) -> None:
        """Forget what came: another server begins anew."""
        self.tokens, self.finish_reason, self._pieces = 0, None, []

    def take(self, choice: dict[str, Any]) -> None:
        """Add a chunk.

        Raises:
            ModelError: it names no token ids, or has fewer alternatives than were asked for.
        """
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        token_ids = choice.get("token_ids")
        if token_ids is None:
            raise ModelError(
                "the server gives no token ids (return_token_ids): it has to be `vllm serve` of version 0.11 or newer, "
                "or another one that knows this field"
            )
        if not token_ids:
            return
        found = choice["logprobs"]
        ids, logprobs = rows_of([list(row) for row in found["top_logprobs"]], found["top_logprobs"], self._width)
        self._pieces.append(
            (np.array(token_ids, np.int32), ids, logprobs, np.array(found["token_logprobs"], np.float32))
        )
        self.tokens += len(token_ids)

    def completion(self, request: Request) -> Completion:
        """All of it."""
        empty = np.empty((0, self._width), np.float32)
        nothing = (np.empty(0, np.int32), empty.astype(np.int32), empty, np.empty(0, np.float32))
        columns = [np.concatenate(column) for column in zip(nothing, *self._pieces, strict=True)]
        token_ids, top_ids, top_logprobs, sampled = columns
        reason = self.finish_reason or "cut off"
        return Completion(request.request_id, token_ids, reason, top_ids, top_logprobs, sampled)


def scored_completion(request: Request, choice: dict[str, Any], width: int) -> Completion:
    """Row i describes token i + 1 of what was read.

    Raises:
        ModelError: the server gives no log-probabilities of a prompt.
    """
    token_ids = request.token_ids
    given = choice.get("prompt_logprobs")
    if given is None or len(given) != len(token_ids):
        raise ModelError(
            "the server gives no log-probabilities of a prompt (prompt_logprobs): mode score needs `vllm serve`"
        )
    found = given[1:]
    sampled = [row[str(token)]["logprob"] for row, token in zip(found, token_ids[1:], strict=True)]
    values = [{token: entry["logprob"] for token, entry in row.items()} for row in found]
    ids, logprobs = rows_of([list(row) for row in values], values, width)
    after = np.array(token_ids[1:], np.int32)
    return Completion(request.request_id, after, "stop", ids, logprobs, np.array(sampled, np.float32))


def label_logprobs(choice: dict[str, Any], labels: list[int]) -> np.ndarray:
    """What was asked by `label_body`: float32 [labels].

    Raises:
        ModelError: the server looks up no tokens.
    """
    (row,) = choice["logprobs"]["top_logprobs"]
    try:
        return np.array([row[f"{_TOKEN_ID}{label}"] for label in labels], np.float32)
    except KeyError:
        raise ModelError(
            "the server does not look up tokens by id (logprob_token_ids): mode classify needs `vllm serve` of the "
            "pinned version or newer"
        ) from None


def rows_of(names: list[list[str]], values: list[dict[str, float]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Alternatives as rectangles, the likeliest first: int32 [T, K] and float32 [T, K], without Python numbers for ids.

    A row has K of them, or one more: the token that was sampled, where it is none of the K likeliest.

    Args:
        names: of every row's tokens, such as `token_id:7` or `7`.
        values: their log-probabilities.
        width: K.

    Raises:
        ModelError: a row has fewer than K, or names that are no ids.
    """
    counts = np.array([len(row) for row in names])
    if counts.min(initial=width) < width:
        raise ModelError(
            f"the server gives {counts.min()} alternatives a token and teacher.soft_labels asks for {width}: start it "
            f"with --max-logprobs {width}, or lower max_support"
        )
    ids = np.zeros((len(names), width + 1), np.int32)
    logprobs = np.full((len(names), width + 1), -np.inf, np.float32)
    there = np.arange(width + 1) < counts[:, None]
    text = ",".join(map(",".join, names)).replace(_TOKEN_ID, "")
    try:
        ids[there] = np.fromstring(text, np.int32, sep=",")
    except (ValueError, DeprecationWarning):
        raise ModelError(
            "the server names tokens by their text (return_tokens_as_token_ids is unknown to it): it has to be "
            "`vllm serve`, or another one that knows this field"
        ) from None
    logprobs[there] = np.fromiter(chain.from_iterable(row.values() for row in values), np.float32)
    order = np.argsort(-logprobs, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(logprobs, order, axis=1)
