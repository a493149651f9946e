"""What a build will cost: traces, tokens, bytes and time, from what the store has seen of this teacher."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from distill_data.build import BuildPlan
from distill_data.judging import judges_prompts, model_judges
from distill_data.planning import sampled_as

# Where the store holds nothing yet: half of what it may be at most, and the size measured for a high-entropy teacher.
UNSEEN_SHARE_OF_MAX_TOKENS = 0.5
UNSEEN_BYTES_PER_TOKEN = 90.0


@dataclass(frozen=True)
class Estimate:
    """Cost of the missing traces; `measured` says whether it rests on finished traces or on rules of thumb."""

    traces: int
    shards: int
    tokens: int
    tokens_at_most: int
    bytes: int
    measured: bool
    verdicts: int = 0  # that models have to give: on what is there, and on what is missing
    judge_tokens: int = 0
    judge_tokens_at_most: int = 0


def estimate_build(build: BuildPlan) -> Estimate:
    """Estimate the missing work; the mean length and size of this teacher's finished traces where there are any."""
    finished = build.plan.finished.filter(pc.is_null(build.plan.finished["error"]))
    missing = len(build.plan.missing)
    at_most = int(_most_tokens(build).sum())
    tokens = at_most * UNSEEN_SHARE_OF_MAX_TOKENS
    per_token = UNSEEN_BYTES_PER_TOKEN
    if len(finished):
        tokens = missing * pc.sum(finished["completion_tokens"]).as_py() / len(finished)
        per_token = build.store.size() / max(1, pc.sum(build.store.index()["completion_tokens"]).as_py())
    verdicts, judge_tokens, judge_most = _judging(build)
    return Estimate(
        traces=missing,
        shards=-(-missing // build.config.storage.shard_size),
        tokens=round(tokens),
        tokens_at_most=at_most,
        bytes=round(tokens * per_token + judge_tokens * UNSEEN_BYTES_PER_TOKEN),
        measured=len(finished) > 0,
        verdicts=verdicts,
        judge_tokens=judge_tokens,
        judge_tokens_at_most=judge_most,
    )


def _judging(build: BuildPlan) -> tuple[int, int, int]:
    """Verdicts of models, their tokens, and those at most: on the answers that are there, and one a missing trace."""
    verdicts = tokens = most = 0
    for judge, judging in zip(model_judges(build.config), build.judgings, strict=True):
        known = estimate_build(judging)
        own = judges_prompts(build.config, judge, build.prompts.table)[build.plan.missing["prompt_row"].to_numpy()]
        unseen = int(own.sum()) * judge.teacher.sampling.samples
        unseen_most = unseen * judge.teacher.sampling.max_tokens
        each = known.tokens / known.traces if known.measured and known.traces else None
        verdicts += known.traces + unseen
        tokens += known.tokens + round(unseen_most * UNSEEN_SHARE_OF_MAX_TOKENS if each is None else unseen * each)
        most += known.tokens_at_most + unseen_most
    return verdicts, tokens, most


def _most_tokens(build: BuildPlan) -> np.ndarray:
    """How many completion tokens each missing trace may have: int64 [missing]."""
    prompts, missing = build.prompts.table, build.plan.missing
    rows = missing["prompt_row"].to_numpy()
    if build.config.teacher.mode == "score":  # a token is at least a byte, and EOS comes last
        return pc.binary_length(prompts["completion"]).to_numpy().astype(np.int64)[rows] + 1
    if build.config.teacher.mode == "classify":  # the same
        return np.full(len(rows), sum(len(words.encode()) for words in build.config.teacher.labels.values()))
    as_sampled = sampled_as(build.config, prompts["source"], "max_tokens")[rows]
    retried = pc.fill_null(missing["max_tokens"], 0).to_numpy()
    return np.where(retried > 0, retried, as_sampled)
