from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from distill_data.judge_config import Judge, JudgeSection

JUDGE: TypeAdapter[Any] = TypeAdapter(Judge)


def judge(**keys: Any) -> Any:
    return JUDGE.validate_python(keys)


@pytest.mark.parametrize("verifier", ["exact", "reasoning_gym", "math", "choice"])
def test_defaults_are_dumped_as_they_were_before_timeouts(verifier: str) -> None:
    assert judge(verifier=verifier).model_dump(mode="json") == {"verifier": verifier, "pass_score": 1.0}


def test_what_is_set_is_dumped_and_read_back() -> None:
    section = judge(verifier="numeric", timeout_seconds=3, processes=2, relative_tolerance=0.01)
    dumped = section.model_dump(mode="json")
    assert dumped == {
        "verifier": "numeric",
        "pass_score": 1.0,
        "timeout_seconds": 3.0,
        "processes": 2,
        "relative_tolerance": 0.01,
        "absolute_tolerance": 0.0,
    }
    assert judge(**dumped) == section


@pytest.mark.parametrize(
    ("keys", "defaults"),
    [
        ({"verifier": "numeric"}, {"relative_tolerance": 1e-6, "absolute_tolerance": 0.0, "timeout_seconds": 10.0}),
        ({"verifier": "regex"}, {"pattern": None, "match": "final", "processes": None}),
        ({"verifier": "json_schema"}, {"json_schema": None}),
        ({"verifier": "python", "function": "a.b:c"}, {"function": "a.b:c"}),
        ({"verifier": "code"}, {"language": "python", "cpu_seconds": 10.0, "memory_mib": 1024, "output_kib": 64}),
    ],
)
def test_defaults(keys: dict[str, Any], defaults: dict[str, Any]) -> None:
    section = judge(**keys)
    assert isinstance(section, JudgeSection)
    assert {name: getattr(section, name) for name in defaults} == defaults


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"verifier": "regex", "pattern": "(a"}, r"'\(a' is no regular expression .*: correct it"),
        ({"verifier": "json_schema", "json_schema": {"type": "strin"}}, r"\$\.type is no JSON schema .*: correct it"),
        ({"verifier": "json_schema", "json_schema": {"const": object()}}, "use text, numbers"),
        ({"verifier": "python", "function": "a.b"}, "'a.b' names no function: write it as package.module:function"),
        ({"verifier": "python", "function": "a b:c"}, "names no function"),
        ({"verifier": "python", "function": "os:system('x')"}, "names no function"),
        ({"verifier": "python"}, "Field required"),
        ({"verifier": "exact", "pass_score": 0.0}, "greater than 0"),
        ({"verifier": "exact", "pass_score": 1.1}, "less than or equal to 1"),
        ({"verifier": "exact", "timeout_seconds": 0}, "greater than 0"),
        ({"verifier": "exact", "processes": 0}, "greater than 0"),
        ({"verifier": "exact", "pattern": "a"}, "Extra inputs are not permitted"),
        ({"verifier": "numeric", "absolute_tolerance": -1.0}, "greater than or equal to 0"),
        ({"verifier": "code", "language": "cobol"}, "Input should be 'python'"),
        ({"verifier": "nope"}, "does not match any of the expected tags: 'exact', 'reasoning_gym', 'math'"),
        ({}, "Unable to extract tag"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        judge(**keys)


def test_every_key_is_documented() -> None:
    sections = [judge(verifier="exact"), judge(verifier="regex"), judge(verifier="code"), judge(verifier="json_schema")]
    fields = {(type(s).__name__, name): field for s in sections for name, field in type(s).model_fields.items()}
    assert [name for name, field in fields.items() if not (field.description or "").endswith(".")] == []
