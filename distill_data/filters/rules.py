"""The drop rules over a table of traces; the first that holds names the drop reason."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filter_config import Filters
from distill_data.keep_config import Keep

ENDED_REASONS: dict[str, str] = {
    "empty_prompt": "the prompt has no text",
    "empty_completion": "there is no completion to score",
    "duplicate_prompt": "the same prompt came earlier",
    "prompt_too_long": "the prompt leaves no room in the teacher's context",
    "token_out_of_vocabulary": "the prompt has a token that the teacher does not know",
    "nonfinite_logprobs": "the teacher's log-probabilities were missing or not finite",
    "request_failed": "the teacher failed on this prompt",
    "engine_died": "the teacher's engine died three times with this prompt in flight",
    "context_overflow": "the teacher's context was full before the completion ended",
    "truncated": "the completion was cut by max_tokens",
    "unfinished_thinking": "a thought was opened and never closed",
    "missing_answer": "the completion has no answer",
    "content_free": "an input without content, which only shows what label the teacher prefers anyway",
}
"""Why there is no completion to look at, or none that came to its end, with one line for the dataset card."""
JUDGED_REASONS = {
    "verifier_error": "the verifier failed on this answer",
    "failed_verifier": "the verifier did not pass the answer",
}
"""What the judge says, where only passed traces are kept."""


def drop_reasons(
    table: pa.Table, filters: Filters, keep: Keep, content: pa.StringArray | None = None
) -> pa.StringArray:
    """The drop reason of every row, null for a row that is kept; length n.

    `content` are the reasons that what was measured gives (`thresholds.content_reasons`); they come before the judge's.
    `table` has `finish_reason`, `error` and `answer` (text), `thinking_finished` and `passed` (bool), and,
    where answers were judged, `verdict_error` (text). A row without a verdict has not passed, unless `has_judge` says
    that its source has no judge.
    """
    ended: list[tuple[bool, str, pa.ChunkedArray]] = [
        (filters.truncated, "context_overflow", pc.equal(table["finish_reason"], "context")),
        (filters.truncated, "truncated", pc.equal(table["finish_reason"], "length")),
        (filters.unfinished_thinking, "unfinished_thinking", pc.invert(table["thinking_finished"])),
        (filters.missing_answer, "missing_answer", _is_blank(table["answer"])),
    ]
    judged: list[tuple[bool, str, pa.ChunkedArray]] = [
        (keep.passed_only, "verifier_error", _has_error(table)),
        (keep.passed_only, "failed_verifier", _not_passed(table)),
    ]
    measured = [] if content is None else [content]
    return pc.coalesce(table["error"].cast(pa.string()), *_named(ended), *measured, *_named(judged)).combine_chunks()


def _named(rules: list[tuple[bool, str, pa.ChunkedArray]]) -> list[pa.ChunkedArray]:
    """Of every active rule its reason where it holds, else null."""
    nothing = pa.scalar(None, pa.string())
    return [pc.if_else(holds, reason, nothing) for active, reason, holds in rules if active]


def _is_blank(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(pc.utf8_trim_whitespace(pc.fill_null(text, "")), "")


def _not_passed(table: pa.Table) -> pa.ChunkedArray:
    passed = pc.fill_null(table["passed"], False)
    if "has_judge" in table.column_names:
        passed = pc.or_(passed, pc.invert(table["has_judge"]))
    return pc.invert(passed)


def _has_error(table: pa.Table) -> pa.ChunkedArray:
    if "verdict_error" not in table.column_names:
        return pa.chunked_array([pa.repeat(pa.scalar(False), table.num_rows)])
    return pc.is_valid(table["verdict_error"])
