"""From a teacher's completion to a trace: what was wanted, what came of it. Pure, but for the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_data.records import SoftLabels, Trace
from distill_data.soft_labels import empty_soft_labels, select_drawn, select_support
from distill_data.teacher_config import Sampling, SoftLabelSelection
from distill_data.teachers.base import Completion
from distill_data.teachers.rendering import RenderedPrompt


@dataclass(frozen=True)
class Wanted:
    """A trace to generate or to score; `number` is its row in the plan's missing work."""

    number: int
    prompt_id: str
    sample_index: int
    rendered: RenderedPrompt
    sampling: Sampling
    attempt: int = 1

    @property
    def request_id(self) -> str:
        """Names the request inside one worker."""
        return f"{self.prompt_id}-{self.sample_index}-{self.attempt}"


@dataclass(frozen=True)
class Outcome:
    """A trace that is finished and not yet committed: its labels, or why it has none."""

    wanted: Wanted
    token_ids: np.ndarray  # int32 [T]
    finish_reason: str
    soft_labels: SoftLabels
    error: str | None = None
    error_detail: str | None = None


def outcome_of(wanted: Wanted, completion: Completion, selection: SoftLabelSelection) -> Outcome:
    """What a completion that the engine ended by itself (`stop`, `length`) amounts to."""
    completion = _only_completion(completion, wanted)
    tokens = len(completion.token_ids)
    reason = completion.finish_reason
    if reason == "length" and tokens < wanted.sampling.max_tokens:
        reason = "context"  # vLLM cuts at the end of the context without saying so
    if wanted.rendered.scored_cut:
        reason = "length"
    try:
        select = select_drawn if selection.kind == "sampled" else select_support
        labels = select(completion.top_ids, completion.top_logprobs, completion.sampled_logprobs, selection)
    except ValueError as error:
        return failed(wanted, "nonfinite_logprobs", f"in {tokens} tokens: {error}")
    return Outcome(wanted, completion.token_ids, reason, labels)


def failed(wanted: Wanted, error: str, detail: str) -> Outcome:
    """A trace without tokens, and why."""
    return Outcome(wanted, np.empty(0, np.int32), "error", empty_soft_labels(), error, detail)


def traces_of(outcomes: list[Outcome], tokenizer: Any) -> list[Trace]:
    """Outcomes as traces; the text is decoded here, all together, without the token that stopped it."""
    ids = [o.token_ids[:-1] if o.finish_reason == "stop" else o.token_ids for o in outcomes]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return [
        Trace(
            prompt_id=outcome.wanted.prompt_id,
            sample_index=outcome.wanted.sample_index,
            prompt_token_ids=np.array(_read_only(outcome), np.int32),
            prompt_suffix=outcome.wanted.rendered.suffix,
            completion_token_ids=outcome.token_ids,
            completion=text,
            finish_reason=outcome.finish_reason,
            soft_labels=outcome.soft_labels,
            error=outcome.error,
            error_detail=outcome.error_detail,
        )
        for outcome, text in zip(outcomes, texts, strict=True)
    ]


def _read_only(outcome: Outcome) -> list[int]:
    """What the teacher was given; of a trace that failed also what it was to read then, or planning would think that
    one which is too long for the context fits it.
    """
    rendered = outcome.wanted.rendered
    return rendered.token_ids if outcome.error is None else rendered.token_ids + rendered.to_read_after


def _only_completion(completion: Completion, wanted: Wanted) -> Completion:
    """Scoring describes the prompt's tokens too, from its second on: leave them out."""
    if wanted.rendered.scored_token_ids is None:
        return completion
    start = len(wanted.rendered.token_ids) - 1
    return Completion(
        request_id=completion.request_id,
        token_ids=completion.token_ids[start:],
        finish_reason=completion.finish_reason,
        top_ids=completion.top_ids[start:],
        top_logprobs=completion.top_logprobs[start:],
        sampled_logprobs=completion.sampled_logprobs[start:],
    )
