"""What a build will cost: traces, tokens, bytes and time, from what the store has seen of this teacher."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from distill_data.build import BuildPlan
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
    return Estimate(
        traces=missing,
        shards=-(-missing // build.config.storage.shard_size),
        tokens=round(tokens),
        tokens_at_most=at_most,
        bytes=round(tokens * per_token),
        measured=len(finished) > 0,
    )


def _most_tokens(build: BuildPlan) -> np.ndarray:
    """How many completion tokens each missing trace may have: int64 [missing]."""
    prompts, missing = build.prompts.table, build.plan.missing
    rows = missing["prompt_row"].to_numpy()
    if build.config.teacher.mode == "score":  # a token is at least a byte, and EOS comes last
        return pc.binary_length(prompts["completion"]).to_numpy().astype(np.int64)[rows] + 1
    as_sampled = sampled_as(build.config, prompts["source"], "max_tokens")[rows]
    retried = pc.fill_null(missing["max_tokens"], 0).to_numpy()
    return np.where(retried > 0, retried, as_sampled)
