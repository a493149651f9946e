from __future__ import annotations

import time

import pytest

from distill_data.reasoning import Split, final_answer, split_completion
from distill_data.teacher_config import Reasoning

TAGS = Reasoning()
PATTERN = Reasoning(answer_pattern=r"Answer:\s*(.+)")


@pytest.mark.parametrize(
    ("completion", "suffix", "expected"),
    [
        ("<think>2+2\n</think>\n\n4", "", Split("2+2", "4", True)),
        ("\n <think>2+2</think>4", "", Split("2+2", "4", True)),
        ("2+2</think> 4 ", "<|assistant|><think>\n", Split("2+2", "4", True)),
        ("2+2</think>4", "<|assistant|>", Split("2+2", "4", True)),
        ("<think>still going", "", Split("still going", "", False)),
        ("still going", "<think>\n", Split("still going", "", False)),
        ("", "<think>", Split("", "", False)),
        ("<think></think>4", "", Split("", "4", True)),
        ("4", "<think>\n\n</think>\n\n", Split(None, "4", True)),
        ("  just 4\n", "", Split(None, "just 4", True)),
        ("", "", Split(None, "", True)),
        ("<think>思考：二加二等于四。</think>\n答案是四。", "", Split("思考：二加二等于四。", "答案是四。", True)),  # noqa: RUF001
        ("<think>a <think> b</think>c", "", Split("a <think> b", "c", True)),
        ("<think>a</think>b</think>c", "", Split("a", "b</think>c", True)),
        ("I would <think> about it", "", Split(None, "I would <think> about it", True)),
        ("<think>a\n\n b</think>c\n\n  d", "", Split("a\n\n b", "c\n\n  d", True)),
    ],
)
def test_split_at_tags(completion: str, suffix: str, expected: Split) -> None:
    assert split_completion(completion, suffix, TAGS) == expected


@pytest.mark.parametrize(
    ("completion", "pattern", "expected"),
    [
        ("2+2=4\nAnswer: 4\nBye", r"Answer:\s*(.+)", Split("2+2=4\nAnswer:", "4", True)),
        ("Answer: 3, no.\nAnswer: 4", r"Answer:\s*(.+)", Split("Answer: 3, no.\nAnswer:", "4", True)),
        ("so 41 and 42", r"\d+", Split("so 41 and", "42", True)),
        ("42", r"\d+", Split("", "42", True)),
        ("no idea", r"\d+", Split("no idea", "", True)),
        ("x", r"x(\d)?", Split("x", "", True)),
        ("想一想。答案:四", r"答案:(.+)", Split("想一想。答案:", "四", True)),
    ],
)
def test_split_at_pattern(completion: str, pattern: str, expected: Split) -> None:
    assert split_completion(completion, "", Reasoning(answer_pattern=pattern)) == expected


def test_tags_come_before_the_pattern() -> None:
    assert split_completion("<think>Answer: 1</think>Answer: 2", "", PATTERN) == Split("Answer: 1", "Answer: 2", True)
    assert split_completion("<think>Answer: 1", "", PATTERN) == Split("Answer: 1", "", False)


def test_other_tags_and_no_tags() -> None:
    other = Reasoning(open_tag="[THINK]", close_tag="[/THINK]")
    assert split_completion("[THINK]a[/THINK]b", "", other) == Split("a", "b", True)
    assert split_completion("<think>a</think>b", "", other) == Split(None, "<think>a</think>b", True)
    none = Reasoning(open_tag="", close_tag="")
    assert split_completion("a b", "", none) == Split(None, "a b", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer> 7 </answer> or <answer>8</answer> and \\boxed{9}", "8"),
        ("<answer>7", "<answer>7"),
        ("so \\boxed{1} then \\boxed{\\frac{1}{2}}. Answer: 3", "\\frac{1}{2}"),
        ("\\boxed{4} and \\boxed{5", "4"),
        ("Answer: 1\nThe final answer is: **42**.\nI hope it helps", "42"),
        ("**Answer:** 3.50", "3.50"),
        ("**Answer**: `x = 2`.", "x = 2"),
        ("Answer: -7.", "-7"),
        ("the ANSWER is twelve", "twelve"),
        ("答案 answer：四十二\n", "四十二"),  # noqa: RUF001
        ("We find\n12 + 30 = 42.", "42"),
        ("a = b = 3", "3"),
        ("x = 1\nso it is one", "x = 1\nso it is one"),
        ("  42\n", "42"),
        ("swanswer: 3 fits", "swanswer: 3 fits"),
        ("", ""),
    ],
)
def test_final_answer(text: str, expected: str) -> None:
    assert final_answer(text) == expected


@pytest.mark.parametrize("loop", ["\\boxed{", "<answer>", "answer is ", "answer:"])
def test_a_looping_teacher_costs_no_time(loop: str) -> None:
    start = time.monotonic()
    final_answer(loop * 40_000)
    assert time.monotonic() - start < 2.0
