from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distill_data.filter_config import Filters


def test_what_is_off_is_no_part_of_a_digest() -> None:
    as_ever = {"truncated": True, "unfinished_thinking": True, "missing_answer": True}
    assert Filters().model_dump(mode="json") == as_ever
    assert Filters(refusals=False, max_tokens=None).model_dump(mode="json") == as_ever
    assert Filters(refusals=True, max_repetition=0.0).model_dump(mode="json") == as_ever | {
        "refusals": True,
        "max_repetition": 0.0,
    }


def test_languages_are_one_or_many_in_any_order() -> None:
    assert Filters(language="en").language == ["en"]  # pyright: ignore[reportArgumentType]
    assert Filters(language=["zh", "en", "zh"]) == Filters(language=["en", "zh"])


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"language": "english"}, "no code of ISO 639-1"),
        ({"language": []}, "is empty"),
        ({"min_tokens": 20, "max_tokens": 10}, "keeps nothing"),
        ({"min_tokens": 0}, "greater than 0"),
        ({"max_repetition": 1.5}, "less than or equal to 1"),
        ({"max_compression": 0.5}, "greater than or equal to 1"),
        ({"min_mean_logprob": 1.0}, "less than or equal to 0"),
        ({"max_mean_entropy": 0.0}, "greater than 0"),
        ({"refusals": "yes"}, "valid boolean"),
        ({"max_paragraphs": 3}, "Extra inputs"),
    ],
)
def test_values_that_cannot_be_meant(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Filters(**keys)


def test_every_key_is_explained() -> None:
    undocumented = [name for name, field in Filters.model_fields.items() if not (field.description or "").strip()]
    assert not undocumented
