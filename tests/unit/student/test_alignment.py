from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distill_data.student.alignment import same_starts, token_starts
from tests.tiny_model import SAMPLE_TEXT, make_tokenizer
from tests.unit.student.other_tokenizers import make_metaspace_tokenizer

TEXTS = [*SAMPLE_TEXT, "", "a", "x  \n\n y", "🙂🙂 fox 棒", "Ünïcödé"]
MAKERS = {
    "bytes": lambda: make_tokenizer(300),
    "more bytes": lambda: make_tokenizer(400),
    "metaspace": make_metaspace_tokenizer,
}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]()


@pytest.mark.parametrize("text", TEXTS)
def test_what_stands_before_a_start_is_what_the_tokens_before_it_say(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    said = tokenizer.decode(ids)
    starts = token_starts(tokenizer, ids, said)
    assert len(starts) == len(ids)
    for token, start in enumerate(starts.tolist()):
        before = tokenizer.decode(ids[:token])
        if start >= 0:
            assert before == said[:start]
        else:
            assert "\ufffd" in before or not said.startswith(before)  # a part of a character


def test_every_start_between_whole_characters_is_found(tokenizer: Any) -> None:
    ids = tokenizer("The quick brown fox 🙃 jumps 漢", add_special_tokens=False)["input_ids"]
    said = tokenizer.decode(ids)
    whole = [said.startswith(before) for before in (tokenizer.decode(ids[:end]) for end in range(len(ids)))]
    assert ((token_starts(tokenizer, ids, said) >= 0) == whole).all()
    assert not all(whole)


def test_tokens_of_one_start() -> None:
    own, teachers = np.array([0, 2, -1, 3, 7, 9]), np.array([0, 1, -1, 3, 3, 9])
    assert same_starts(own, teachers).tolist() == [0, -1, -1, 4, -1, 5]
    assert same_starts(own, np.empty(0, np.int64)).tolist() == [-1] * 6
    assert same_starts(np.empty(0, np.int64), teachers).tolist() == []


def test_two_tokenizers_meet_at_the_same_text() -> None:
    text = "The quick brown fox jumps over the lazy dog; Answer: 42 🙂 Ünïcödé"
    one, other = make_tokenizer(400), make_metaspace_tokenizer()
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in (one, other)]
    met = same_starts(token_starts(other, ids[1], text), token_starts(one, ids[0], text))
    assert (met >= 0).sum() > 10
    for token, teachers in enumerate(met.tolist()):
        if teachers >= 0:
            assert other.decode(ids[1][:token]) == one.decode(ids[0][:teachers])
