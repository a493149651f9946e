from __future__ import annotations

from typing import Any

import pytest

from distill_data.errors import InputError
from distill_data.records import Prompt
from distill_data.verify.json_schema import JsonSchemaVerifier

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}, "additionalProperties": False}


def ask(**metadata: Any) -> Prompt:
    return Prompt([{"role": "user", "content": "?"}], "mine", None, metadata)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"n": 1}', 1.0), (' \n{"n": 1}\n', 1.0), ('Here:\n```json\n{"n": 1}\n```\nDone.', 1.0),
        ('```\n{"n": 1}\n```', 1.0), ('```json\n{"n": "1"}\n```\nNo:\n```json\n{"n": 1}\n```', 1.0),
        ('<answer>{"n": 1}</answer>', 1.0), ('- so\n  ```JSON\n  {"n": 1}\n  ```', 1.0),
        ('```json\n{"n": 1}\n```\nNo:\n```json\n{"n": "1"}\n```', 0.0), ('{"n": "1"}', 0.0), ("{}", 0.0), ("[]", 0.0),
        ('{"n": 1, "m": 2}', 0.0), ('{"n": 1.5}', 0.0), ('{"n": NaN}', 0.0), ("{'n': 1}", 0.0), ('{"n": 1,}', 0.0),
        ("", 0.0), ("no JSON", 0.0), ('{"n": 1} {"n": 1}', 0.0), ('Here: {"n": 1}', 0.0), ("[" * 100_000, 0.0),
        ('{"n": ' + "9" * 5000 + "}", 0.0), ('```json\n{"n": 1}', 0.0),
    ],
)  # fmt: skip
def test_score(answer: str, score: float) -> None:
    assert JsonSchemaVerifier(SCHEMA).score(answer, ask()) == score


@pytest.mark.parametrize("schema", [{"type": "array"}, '{"type": "array"}'])
def test_each_prompt_may_have_its_own(schema: Any) -> None:
    assert JsonSchemaVerifier().score("[1]", ask(json_schema=schema)) == 1.0
    assert JsonSchemaVerifier().score("{}", ask(json_schema=schema)) == 0.0


def test_definitions_inside_the_schema_are_followed() -> None:
    schema = {"$defs": {"n": {"type": "integer"}}, "items": {"$ref": "#/$defs/n"}}
    assert JsonSchemaVerifier(schema).score("[1, 2]", ask()) == 1.0
    assert JsonSchemaVerifier(schema).score('[1, "2"]', ask()) == 0.0


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("a schema was fetched")

    monkeypatch.setattr("urllib.request.urlopen", fetched)
    with pytest.raises(InputError, match=r"refers to 'http://127\.0\.0\.1:9/n\.json', which it does not hold"):
        JsonSchemaVerifier({"$ref": "http://127.0.0.1:9/n.json"}).score("1", ask())


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"has no JSON schema: set judge\.json_schema, or give the metadata 'json_schema'"),
        ({"json_schema": "{"}, "has a JSON schema that is no JSON"),
        ({"json_schema": {"type": "strin"}}, "not valid: .*'strin' is not valid.*: correct it"),
        ({"json_schema": ["type"]}, "not valid"),
    ],
)
def test_a_prompt_without_a_usable_schema(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        JsonSchemaVerifier().score("1", ask(**metadata))
