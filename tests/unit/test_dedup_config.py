from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distill_data.dedup_config import BenchmarkSource, Decontaminate, Deduplicate

EXAM = {"path": "some/exam.jsonl", "text": ["question"]}


def test_what_is_left_out_is_off_and_in_no_dump() -> None:
    assert Deduplicate().model_dump() == {} and Deduplicate().is_default
    assert Decontaminate().model_dump(mode="json") == {} and Decontaminate().is_default
    assert (Deduplicate().prompts, Deduplicate().samples, Decontaminate().benchmarks) == ("off", "off", [])
    assert Deduplicate.model_validate({"prompts": "off", "prompt_similarity": 0.8}) == Deduplicate()


def test_what_is_set_survives_a_dump() -> None:
    section = Deduplicate.model_validate({"prompts": "group", "against": ["arithmetic@v3"], "prompt_similarity": 1.0})
    assert section.model_dump() == {"prompts": "group", "against": ["arithmetic@v3"], "prompt_similarity": 1.0}
    assert Deduplicate.model_validate(section.model_dump()) == section and not section.is_default
    clean = Decontaminate.model_validate({"benchmarks": [EXAM | {"answer": "a", "split": "test"}], "answers": True})
    assert clean.model_dump() == {"benchmarks": [EXAM | {"answer": "a", "split": "test"}], "answers": True}
    assert Decontaminate.model_validate_json(clean.model_dump_json()) == clean


def test_a_benchmark_is_named_by_its_path_or_its_name() -> None:
    assert BenchmarkSource.model_validate(EXAM).label == "exam"
    assert BenchmarkSource.model_validate(EXAM | {"name": "final"}).label == "final"


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (Deduplicate, {"against": ["arithmetic"]}, "'arithmetic' is no version of a corpus: write NAME@vN"),
        (Deduplicate, {"against": ["a@v0"]}, "'a@v0' is no version"),
        (Deduplicate, {"against": ["a@v1", "a@v1"]}, "'a@v1' is named twice: remove one"),
        (Deduplicate, {"prompt_similarity": 0.0}, "greater than 0"),
        (Deduplicate, {"sample_similarity": 1.1}, "less than or equal to 1"),
        (Deduplicate, {"prompts": True}, "'off', 'drop' or 'group'"),
        (Deduplicate, {"ngram": 0}, "greater than 0"),
        (
            Decontaminate,
            {"benchmarks": [EXAM, EXAM]},
            "two benchmarks are named 'exam': give one of them another name:",
        ),
        (
            Decontaminate,
            {"benchmarks": [EXAM], "answers": True},
            r"no benchmark \('exam'\) has answer:, a column: name it",
        ),
        (Decontaminate, {"answers": True}, r"no benchmark \(there is none\)"),
        (Decontaminate, {"max_overlap": 1.0}, "less than 1"),
        (BenchmarkSource, {"path": "x", "text": []}, "at least 1 item"),
        (BenchmarkSource, {"path": "x", "text": ["a", "a"]}, "column 'a' is named twice: remove one"),
        (BenchmarkSource, EXAM | {"prompt": "q"}, "Extra inputs"),
    ],
)
def test_values_that_cannot_be_used(section: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section.model_validate(values)
