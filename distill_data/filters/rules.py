"""The drop rules over a table of traces; the first that holds names the drop reason."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Filters, Keep

DROP_REASONS: dict[str, str] = {
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
    "verifier_error": "the verifier failed on this answer",
    "failed_verifier": "the verifier did not pass the answer",
}
"""Every reason why a prompt or trace is dropped, with one line for the dataset card."""


def drop_reasons(table: pa.Table, filters: Filters, keep: Keep) -> pa.StringArray:
    """The drop reason of every row, null for a row that is kept; length n.

    `table` has `finish_reason`, `error` and `answer` (text), `thinking_finished` and `passed` (bool), and,
    where answers were judged, `verdict_error` (text). A row without a verdict has not passed.
    """
    rules: list[tuple[bool, str, pa.ChunkedArray]] = [
        (filters.truncated, "context_overflow", pc.equal(table["finish_reason"], "context")),
        (filters.truncated, "truncated", pc.equal(table["finish_reason"], "length")),
        (filters.unfinished_thinking, "unfinished_thinking", pc.invert(table["thinking_finished"])),
        (filters.missing_answer, "missing_answer", _is_blank(table["answer"])),
        (keep.passed_only, "verifier_error", _has_error(table)),
        (keep.passed_only, "failed_verifier", pc.invert(pc.fill_null(table["passed"], False))),
    ]
    reasons = [table["error"].cast(pa.string())]
    nothing = pa.scalar(None, pa.string())
    reasons += [pc.if_else(holds, reason, nothing) for active, reason, holds in rules if active]
    return pc.coalesce(*reasons).combine_chunks()


def _is_blank(text: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.equal(pc.utf8_trim_whitespace(pc.fill_null(text, "")), "")


def _has_error(table: pa.Table) -> pa.ChunkedArray:
    if "verdict_error" not in table.column_names:
        return pa.chunked_array([pa.repeat(pa.scalar(False), table.num_rows)])
    return pc.is_valid(table["verdict_error"])
