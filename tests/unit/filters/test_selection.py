from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distill_data.filters.selection import pass_rates, select_traces
from distill_data.keep_config import Keep


def traces(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows with what a test does not care about filled in."""
    usual = {
        "prompt_row": 0, "passed": None, "score": None, "completion_tokens": 10, "mean_logprob": -0.5,
        "drop_reason": None, "has_reference": False, "final_answer": None,
    }  # fmt: skip
    schema = pa.schema(
        [
            ("prompt_row", pa.int32()), ("passed", pa.bool_()), ("score", pa.float32()),
            ("completion_tokens", pa.int32()), ("mean_logprob", pa.float32()), ("drop_reason", pa.string()),
            ("has_reference", pa.bool_()), ("final_answer", pa.string()),
        ]
    )  # fmt: skip
    return pa.Table.from_pylist([usual | row for row in rows], schema=schema)


def reasons(rows: list[dict[str, Any]], **keep: Any) -> list[str | None]:
    return select_traces(traces(rows), Keep(**keep)).to_pylist()


def verdicts(*passed: bool | None, prompt: int = 0) -> list[dict[str, Any]]:
    return [{"prompt_row": prompt, "passed": one, "score": None if one is None else float(one)} for one in passed]


def test_without_rules_every_reason_stays() -> None:
    rows = [{"drop_reason": "truncated"}, {}, {"prompt_row": 1}]
    assert reasons(rows) == ["truncated", None, None]
    assert select_traces(traces([]), Keep(self_consistency=0.5, per_prompt=1, min_pass_rate=0.1)).to_pylist() == []


def test_prompts_outside_the_window_are_dropped_with_all_their_traces() -> None:
    rows = [
        *verdicts(False, False),
        *verdicts(True, False, prompt=1),
        *verdicts(True, True, prompt=2),
        *verdicts(None, None, prompt=3),
    ]
    found = reasons(rows, min_pass_rate=0.1, max_pass_rate=0.99)
    assert found == ["too_hard", "too_hard", None, None, "too_easy", "too_easy", None, None]
    assert reasons(rows, min_pass_rate=0.5, max_pass_rate=1.0)[2:6] == [None] * 4  # both ends belong to the window


def test_what_was_dropped_counts_for_the_pass_rate_and_keeps_its_reason() -> None:
    rows = verdicts(True, False, False, False)
    rows[3]["drop_reason"] = "truncated"
    assert reasons(rows, min_pass_rate=0.3) == ["too_hard", "too_hard", "too_hard", "truncated"]
    assert pass_rates(np.zeros(4, np.int32), traces(rows)["passed"]).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    ("answers", "share", "expected"),
    [
        (["4", "4", "5"], 0.5, [None, None, "minority_answer"]),
        (["4", "5", "6"], 0.5, ["no_majority"] * 3),
        (["5", "4", "4", "5"], 0.5, [None, "minority_answer", "minority_answer", None]),  # a tie: the first one
        (["4", None, None], 0.5, [None, "minority_answer", "minority_answer"]),  # no answer is no vote
        ([None, None], 0.0, ["no_majority", "no_majority"]),
        (["4", "4", "4", "5"], 0.75, [None, None, None, "minority_answer"]),
    ],
)
def test_the_majority_decides(answers: list[str | None], share: float, expected: list[str | None]) -> None:
    rows = [{"final_answer": answer, "prompt_row": 3} for answer in answers]
    assert reasons(rows, self_consistency=share) == expected


def test_prompts_with_a_reference_do_not_vote() -> None:
    rows = [{"final_answer": answer, "has_reference": True} for answer in ("1", "2", "3")]
    assert reasons(rows, self_consistency=0.9) == [None] * 3


@pytest.mark.parametrize(
    ("prefer", "kept"),
    [("first", [0, 1]), ("best", [1, 3]), ("shortest", [2, 3]), ("longest", [0, 1]), ("likeliest", [0, 3])],
)
def test_the_preferred_traces_of_a_prompt_stay(prefer: str, kept: list[int]) -> None:
    rows = [
        {"score": 0.5, "completion_tokens": 40, "mean_logprob": -0.1},
        {"score": 1.0, "completion_tokens": 30, "mean_logprob": -0.9},
        {"score": None, "completion_tokens": 20, "mean_logprob": None},
        {"score": 1.0, "completion_tokens": 20, "mean_logprob": -0.2},
    ]
    found = reasons([{"prompt_row": 7} | row for row in rows], per_prompt=2, prefer=prefer)
    assert [at for at, reason in enumerate(found) if reason is None] == kept
    assert set(found) == {None, "not_selected"}


def test_only_kept_traces_count_towards_the_number() -> None:
    rows = [{"drop_reason": "truncated"}, {}, {}, {"prompt_row": 1}]
    assert reasons(rows, per_prompt=1) == ["truncated", None, "not_selected", None]


def test_against_counting_by_hand() -> None:
    random = np.random.default_rng(0)
    rows = [
        {
            "prompt_row": int(prompt),
            "passed": [None, True, False][random.integers(3)],
            "final_answer": [None, "a", "b", "c"][random.integers(4)],
            "completion_tokens": int(random.integers(1, 5)),
        }
        for prompt in np.sort(random.integers(0, 60, 400))
    ]
    found = reasons(rows, min_pass_rate=0.3, self_consistency=0.4, per_prompt=2, prefer="shortest")
    for prompt in {row["prompt_row"] for row in rows}:
        own = [at for at, row in enumerate(rows) if row["prompt_row"] == prompt]
        judged = [rows[at]["passed"] for at in own if rows[at]["passed"] is not None]
        if judged and sum(judged) / len(judged) < 0.3:
            assert {found[at] for at in own} == {"too_hard"}
            continue
        votes = Counter(rows[at]["final_answer"] for at in own if rows[at]["final_answer"] is not None)
        top = votes.most_common(1)[0] if votes else (None, 0)  # insertion order decides a tie
        if not votes or top[1] < 0.4 * sum(votes.values()):
            assert {found[at] for at in own} == {"no_majority"}
            continue
        agreed = [at for at in own if rows[at]["final_answer"] == top[0]]
        chosen = sorted(agreed, key=lambda at: rows[at]["completion_tokens"])[:2]
        assert [at for at in own if found[at] is None] == sorted(chosen)
        assert {found[at] for at in own if at not in agreed} <= {"minority_answer"}
