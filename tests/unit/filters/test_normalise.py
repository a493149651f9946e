# ruff: noqa: RUF001
from __future__ import annotations

import random

import pyarrow as pa
import pytest

from distill_data.filters.normalise import normalised, slices, tokens

SAME = [
    ("What's 3+4?", " WHAT’S   3 + 4 ", "what s 3 + 4"),
    ("3-4*(x-y)/2", "3 − 4 × (X − y) / 2", "3 - 4 * x - y / 2"),
    ("**A well-known** fact: 50% off.", "a well known fact -- 50 % off!", "a well known fact 50 % off"),
    ("`x` and $y$", "x and y", "x and y"),
    ("ﬁne ½", "Fine 1⁄2", "fine 1 ⁄ 2"),
    ("e\u0301t\u00e9", "ÉTE\u0301", "été"),
    ("这部电影，很棒!", "这部 电影 很棒", "这 部 电 影 很 棒"),
    ("Hello世界2", "hello 世界 2", "hello 世 界 2"),
    ("สวัสดี", "สวัสดี", "ส ว ั ส ด ี"),
    ("H\u0331ello", "\u1e96ELLO", "\u1e96ello"),
]
DIFFERENT = [
    ("3 + 4", "3 - 4"),
    ("3 - 4", "3 4"),
    ("3*4", "3/4"),
    ("x*(y+1)", "x/(y+1)"),
    ("a - b", "a * b"),
    ("-5", "5"),
    ("x < 3", "x > 3"),
    ("a well known fact", "a well unknown fact"),
    ("5 apples", "6 apples"),
]


@pytest.mark.parametrize(("one", "other", "expected"), SAME)
def test_case_punctuation_and_spaces_do_not_count(one: str, other: str, expected: str) -> None:
    assert normalised(pa.array([one, other])).to_pylist() == [expected, expected]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_numbers_signs_and_words_count(one: str, other: str) -> None:
    first, second = normalised(pa.array([one, other])).to_pylist()
    assert first != second


def test_texts_without_tokens() -> None:
    texts = pa.array(["", None, " \n\t", "?!…", "one"])
    assert normalised(texts).to_pylist() == ["", "", "", "", "one"]
    assert tokens(texts).to_pylist() == [None, None, None, None, ["one"]]
    assert normalised(texts[:0]).to_pylist() == []
    assert normalised(pa.array([None], pa.null())).to_pylist() == [""]


def random_texts(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    letters = "aBz09 -*+/%^$`(['\"\n\t.,;é世界カÄßİ\u0331−×ก😀\x00\u200d½ſΣ"
    return ["".join(draw.choices(letters, k=draw.randrange(30))) for _ in range(count)]


def test_each_text_is_looked_at_by_itself() -> None:
    texts = random_texts(500)
    together = normalised(pa.array(texts)).to_pylist()
    assert together == [normalised(pa.array([text]))[0].as_py() for text in texts]
    assert together[100:200] == normalised(pa.array(texts)[100:200]).to_pylist()
    assert together == normalised(pa.array(texts, pa.large_string())).to_pylist()


def test_tokens_are_what_is_between_single_spaces() -> None:
    for text, made in zip(random_texts(500, 1), tokens(pa.array(random_texts(500, 1))).to_pylist(), strict=True):
        joined = normalised(pa.array([text]))[0].as_py()
        assert joined.split(" ") == (made or [""])
        assert joined == joined.strip() and "  " not in joined


def test_slices_hold_every_row_once_and_little_at_a_time() -> None:
    texts = pa.chunked_array([["a"] * 5000, ["b" * 2**24, "c" * 2**20, None], []], pa.string())
    made = list(slices(texts))
    assert [len(piece) for piece in made] == [4096, 904, 1, 2]
    assert pa.chunked_array(made).to_pylist() == texts.to_pylist()
