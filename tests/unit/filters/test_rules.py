from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from distill_data.filter_config import Filters
from distill_data.filters import DROP_REASONS, drop_reasons
from distill_data.filters.alike_samples import SAMPLE_REASONS
from distill_data.filters.decontamination import CONTAMINATION_REASONS, RECITAL_REASONS
from distill_data.filters.mixing import MIX_REASONS
from distill_data.filters.near_duplicates import PROMPT_REASONS
from distill_data.filters.selection import SELECTION_REASONS
from distill_data.filters.thresholds import CONTENT_REASONS
from distill_data.keep_config import Keep
from distill_data.records import Trace

GOOD: dict[str, Any] = {
    "finish_reason": "stop",
    "error": None,
    "thinking_finished": True,
    "answer": "42",
    "passed": True,
    "verdict_error": None,
}
SCHEMA = pa.schema(
    [
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("thinking_finished", pa.bool_()),
        ("answer", pa.string()),
        ("passed", pa.bool_()),
        ("verdict_error", pa.string()),
    ]
)
ROWS = [
    GOOD,
    GOOD | {"finish_reason": "error", "error": "prompt_too_long", "answer": None, "passed": None},
    GOOD | {"finish_reason": "context", "thinking_finished": False},
    GOOD | {"finish_reason": "length", "thinking_finished": False, "answer": ""},
    GOOD | {"thinking_finished": False, "answer": ""},
    GOOD | {"answer": " \n\u3000", "passed": False},
    GOOD | {"passed": False, "verdict_error": "ValueError: x"},
    GOOD | {"passed": False},
    GOOD | {"passed": None},
]


def reasons(filters: Filters, keep: Keep, rows: list[dict[str, Any]] = ROWS) -> list[str | None]:
    return drop_reasons(pa.Table.from_pylist(rows, schema=SCHEMA), filters, keep).to_pylist()


def test_first_matching_rule_wins() -> None:
    assert reasons(Filters(), Keep(passed_only=True)) == [
        None,
        "prompt_too_long",
        "context_overflow",
        "truncated",
        "unfinished_thinking",
        "missing_answer",
        "verifier_error",
        "failed_verifier",
        "failed_verifier",
    ]


def test_every_rule_can_be_switched_off_but_the_traces_own_error() -> None:
    off = Filters(truncated=False, unfinished_thinking=False, missing_answer=False)
    assert reasons(off, Keep()) == [None, "prompt_too_long", *[None] * 7]
    assert reasons(Filters(truncated=False), Keep())[2:6] == [
        "unfinished_thinking",
        "unfinished_thinking",
        "unfinished_thinking",
        "missing_answer",
    ]


def test_unjudged_traces_stay_without_passed_only() -> None:
    assert reasons(Filters(), Keep())[6:] == [None, None, None]


def test_table_without_verdict_errors_and_empty_tables() -> None:
    table = pa.Table.from_pylist(ROWS, schema=SCHEMA).drop_columns(["verdict_error"])
    assert drop_reasons(table, Filters(), Keep(passed_only=True)).to_pylist()[6:8] == ["failed_verifier"] * 2
    assert reasons(Filters(), Keep(passed_only=True), []) == []


def test_chunked_tables_give_one_array() -> None:
    table = pa.Table.from_pylist(ROWS, schema=SCHEMA)
    joined = drop_reasons(pa.concat_tables([table, table]), Filters(), Keep())
    assert isinstance(joined, pa.StringArray)
    assert len(joined) == 2 * len(ROWS)


def test_every_reason_is_explained() -> None:
    given = {reason for reason in reasons(Filters(), Keep(passed_only=True)) if reason}
    trace_errors = set(re.findall(r"`(\w+_\w+)`", (Trace.__doc__ or "").split("`finish_reason`")[0]))
    assert len(trace_errors) == 6
    prompts = {"empty_prompt", "empty_completion", "duplicate_prompt", *PROMPT_REASONS, *CONTAMINATION_REASONS}
    elsewhere = {"content_free", *RECITAL_REASONS, *CONTENT_REASONS, *SELECTION_REASONS, *MIX_REASONS, *SAMPLE_REASONS}
    assert given | trace_errors | prompts | elsewhere == set(DROP_REASONS)
