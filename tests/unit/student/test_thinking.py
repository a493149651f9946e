from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distill_data.errors import StudentError
from distill_data.reasoning import split_completion
from distill_data.student.thinking import closing_token, cut_thinking, opened_by_prompt
from distill_data.teacher_config import Reasoning
from tests.tiny_model import make_tokenizer
from tests.unit.student.conftest import label_table

CLOSE = 99


def row(name: str, prompt: list[int], completion: list[int]) -> dict[str, Any]:
    """Token t has t % 3 + 1 kept tokens, with ids that name it."""
    counts = [at % 3 + 1 for at in range(len(completion))]
    return {
        "trace_id": name,
        "prompt_token_ids": prompt,
        "completion_token_ids": completion,
        "sampled_logprobs": [-at / 8 for at in range(len(completion))],
        "support_counts": counts,
        "support_ids": [10 * at + rank for at, count in enumerate(counts) for rank in range(count)],
        "support_logprobs": [-1.0 - rank for count in counts for rank in range(count)],
    }


def without(first: int, whole: dict[str, Any], prompt: list[int]) -> dict[str, Any]:
    """A row without its first tokens, by hand."""
    skip = sum(whole["support_counts"][:first])
    per_token = ("completion_token_ids", "sampled_logprobs", "support_counts")
    return {
        **whole,
        "prompt_token_ids": prompt,
        **{name: whole[name][first:] for name in per_token},
        **{name: whole[name][skip:] for name in ("support_ids", "support_logprobs")},
    }


ROWS = [
    row("thinks", [1, 2], [5, 6, CLOSE, 7, 8, 9]),
    row("does not", [3], [5, 6]),
    row("twice", [1], [CLOSE, 4, CLOSE, 5]),
    row("only thinks", [1, 2, 3], [4, 5, CLOSE]),
    row("longer", [7], [*range(20, 40), CLOSE, *range(50, 60)]),
]
THOUGHT = [3, 0, 1, 2, 21]


@pytest.mark.parametrize("how", ["mask", "drop"])
@pytest.mark.parametrize("start", [0, 2])  # a slice of a batch begins somewhere
def test_thinking_is_cut_token_by_token(how: Any, start: int) -> None:
    (batch,) = label_table(ROWS).to_batches()
    cut = cut_thinking(batch.slice(start), CLOSE, how)
    expected = [
        without(
            first, whole, whole["prompt_token_ids"] + (whole["completion_token_ids"][:first] if how == "mask" else [])
        )
        for whole, first in zip(ROWS, THOUGHT, strict=True)
    ]
    assert cut.schema == batch.schema
    assert cut.to_pylist() == expected[start:]


@pytest.mark.parametrize("start", [0, 2])
def test_a_thought_that_the_prompt_opened_is_closed_by_the_student(start: int) -> None:
    (batch,) = label_table(ROWS).to_batches()
    opened = np.array([True, True, True, True, False])
    cut = cut_thinking(batch.slice(start), CLOSE, "drop", opened[start:])
    kept = [2, 0, 0, 2, 21]
    expected = [without(first, whole, whole["prompt_token_ids"]) for whole, first in zip(ROWS, kept, strict=True)]
    assert cut.to_pylist() == expected[start:]
    read = cut_thinking(batch, CLOSE, "mask", opened)
    assert read.equals(cut_thinking(batch, CLOSE, "mask"))


def test_answers_of_such_a_student_are_told_from_its_thinking() -> None:
    """What it learns to say after the prompt is an answer to whoever splits it, with `drop` as with `train`."""
    tokenizer = make_tokenizer(more_special_tokens=["<think>", "</think>"])
    closing = closing_token(tokenizer, "</think>")
    ends = ["assistant\n", "assistant\n<think>\n", "<think> or not?"]
    said = ["<think>12 + 30</think>\n\nAnswer: 42", "12 + 30</think>\n\nAnswer: 42", "Answer: 42"]
    whole = [
        row("", *(tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts))
        for texts in zip(ends, said, strict=True)
    ]
    (batch,) = label_table(whole).to_batches()
    opened = opened_by_prompt(batch, tokenizer, "<think>")
    assert opened.tolist() == [False, True, False]
    assert opened_by_prompt(batch.slice(1), tokenizer, "<think>").tolist() == [True, False]
    assert not opened_by_prompt(batch, tokenizer, "").any()
    learnt = cut_thinking(batch, closing, "drop", opened).to_pylist()
    for one, end in zip(learnt, ends, strict=True):
        split = split_completion(str(tokenizer.decode(one["completion_token_ids"])), end, Reasoning())
        assert split.answer == "Answer: 42" and split.finished and not split.thinking


def test_nothing_to_cut() -> None:
    (batch,) = label_table(ROWS[1:2]).to_batches()
    assert cut_thinking(batch, CLOSE, "drop").equals(batch)
    assert cut_thinking(batch.slice(0, 0), CLOSE, "mask").num_rows == 0


def test_a_closing_tag_is_one_token(tokenizer: Any) -> None:
    close = tokenizer.eos_token
    assert closing_token(tokenizer, close) == tokenizer.eos_token_id
    with pytest.raises(StudentError, match=r"close_tag '</think>' is [0-9]+ of its tokens: set thinking: train"):
        closing_token(tokenizer, "</think>")
