"""Which of a prompt's traces are kept, once each of them was judged and filtered by itself. Pure and vectorised.

In this order: prompts that are too easy or too hard, answers that the prompt's other samples do not agree with, and
what is more than `per_prompt`.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.keep_config import Keep

SELECTION_REASONS: dict[str, str] = {
    "too_hard": "too few of the prompt's traces passed the judge",
    "too_easy": "too many of the prompt's traces passed the judge",
    "minority_answer": "most of the prompt's traces gave another answer",
    "no_majority": "the prompt's traces did not agree on an answer",
    "not_selected": "the prompt has enough other traces",
}


def select_traces(traces: pa.Table, keep: Keep) -> pa.Array:
    """Drop reason of every trace: the one that it has, or one of SELECTION_REASONS, or null for a kept one.

    Args:
        traces: in planned order, columns prompt_row, passed, score, completion_tokens, mean_logprob, drop_reason, and
            with `keep.self_consistency` also has_reference and final_answer, the normalised short answer, null where
            there is none.
        keep: the rules.
    """
    reasons = traces["drop_reason"].combine_chunks()
    groups = traces["prompt_row"].to_numpy()
    for reason, dropped in (
        ("too_hard", _outside(traces, groups, keep.min_pass_rate, low=True)),
        ("too_easy", _outside(traces, groups, keep.max_pass_rate, low=False)),
    ):
        reasons = _drop(reasons, dropped, reason)
    if keep.self_consistency is not None:
        agreed, decided = _majority(groups, traces["final_answer"], keep.self_consistency)
        voted = ~traces["has_reference"].to_numpy()
        reasons = _drop(reasons, voted & ~decided, "no_majority")
        reasons = _drop(reasons, voted & ~agreed, "minority_answer")
    if keep.per_prompt is not None:
        reasons = _drop(reasons, _surplus(traces, groups, _kept(reasons), keep), "not_selected")
    return reasons


def pass_rates(groups: np.ndarray, passed: pa.ChunkedArray) -> np.ndarray:
    """Share of the judged traces of each trace's prompt that passed: float64 [n], NaN where none was judged."""
    judged = pc.is_valid(passed).to_numpy()
    good = pc.fill_null(passed, False).to_numpy()
    size = int(groups.max(initial=-1)) + 1
    total = np.bincount(groups[judged], minlength=size)
    rates = np.full(size, np.nan)
    np.divide(np.bincount(groups[judged & good], minlength=size), total, out=rates, where=total > 0)
    return rates[groups]


def _outside(traces: pa.Table, groups: np.ndarray, limit: float | None, *, low: bool) -> np.ndarray:
    """Which traces belong to a prompt whose pass rate is below or above the limit; without a verdict none does."""
    if limit is None:
        return np.zeros(len(traces), bool)
    rates = pass_rates(groups, traces["passed"])
    return rates < limit if low else rates > limit


def _majority(groups: np.ndarray, answers: pa.ChunkedArray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Which traces give their prompt's most frequent answer, and whether that has at least `share` of the votes.

    All traces of a prompt vote that have an answer; of equally frequent answers the one that came first wins (Wang et
    al., 2023, "Self-Consistency Improves Chain of Thought Reasoning").
    """
    codes = answers.combine_chunks().dictionary_encode().indices
    votes = pc.is_valid(codes).to_numpy(zero_copy_only=False)
    code = pc.fill_null(codes, -1).to_numpy().astype(np.int64)
    ballots = np.stack([groups, code], axis=1)[votes]
    pairs, first, counts = np.unique(ballots, axis=0, return_index=True, return_counts=True)
    best = np.lexsort((first, -counts, pairs[:, 0]))
    leading = best[np.unique(pairs[best, 0], return_index=True)[1]]
    size = int(groups.max(initial=-1)) + 1
    winner, enough = np.full(size, -2), np.zeros(size, bool)
    winner[pairs[leading, 0]] = pairs[leading, 1]
    cast = np.bincount(groups[votes], minlength=size)
    enough[pairs[leading, 0]] = counts[leading] >= share * cast[pairs[leading, 0]]
    return code == winner[groups], enough[groups]


def _surplus(traces: pa.Table, groups: np.ndarray, kept: np.ndarray, keep: Keep) -> np.ndarray:
    """Which kept traces are more than `keep.per_prompt`, counted from the most preferred one."""
    rows = np.flatnonzero(kept)
    order = rows[np.lexsort((rows, _preference(traces, keep)[rows], groups[rows]))]
    group = groups[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    surplus = np.zeros(len(traces), bool)
    surplus[order[place >= (keep.per_prompt or 0)]] = True
    return surplus


def _preference(traces: pa.Table, keep: Keep) -> np.ndarray:
    """Smallest for the trace to keep first: float64 [n]."""
    if keep.prefer == "first":
        return np.zeros(len(traces))
    column, sign = {
        "best": ("score", -1.0),
        "shortest": ("completion_tokens", 1.0),
        "longest": ("completion_tokens", -1.0),
        "likeliest": ("mean_logprob", -1.0),
    }[keep.prefer]
    values = pc.fill_null(traces[column].cast(pa.float64()), np.nan).to_numpy()
    return np.nan_to_num(sign * values, nan=np.inf)


def _kept(reasons: pa.Array) -> np.ndarray:
    return pc.is_null(reasons).to_numpy(zero_copy_only=False)


def _drop(reasons: pa.Array, dropped: np.ndarray, reason: str) -> pa.Array:
    """The reasons, with this one for dropped traces that have none yet."""
    return pc.if_else(pa.array(dropped & _kept(reasons)), reason, reasons)
