"""What a build will cost: traces, tokens, bytes and time, from what the store has seen of this teacher."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.planning import Plan
from distill_data.trace_store import TraceStore

# Where the store holds nothing yet: half of max_tokens, and the size measured for a high-entropy teacher.
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


def estimate_build(settings: Config, plan: Plan, store: TraceStore) -> Estimate:
    """Estimate the missing work; the mean length and size of this teacher's finished traces where there are any."""
    finished = plan.finished.filter(pc.is_null(plan.finished["error"]))
    max_tokens = settings.teacher.sampling.max_tokens
    per_trace = max_tokens * UNSEEN_SHARE_OF_MAX_TOKENS
    per_token = UNSEEN_BYTES_PER_TOKEN
    if len(finished):
        tokens = pc.sum(finished["completion_tokens"]).as_py()
        per_trace = tokens / len(finished)
        per_token = store.size() / max(1, pc.sum(store.index()["completion_tokens"]).as_py())
    missing = len(plan.missing)
    return Estimate(
        traces=missing,
        shards=-(-missing // settings.storage.shard_size),
        tokens=round(missing * per_trace),
        tokens_at_most=missing * max_tokens,
        bytes=round(missing * per_trace * per_token),
        measured=len(finished) > 0,
    )
