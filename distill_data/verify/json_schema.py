"""The answer is JSON that follows a schema."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from distill_data.errors import InputError
from distill_data.identity import canonical_json
from distill_data.judge_config import require_schema
from distill_data.reasoning import final_answer
from distill_data.records import Prompt

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

METADATA_KEY = "json_schema"

_FENCED = re.compile(r"^[ \t]*```(?:json)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE)


class JsonSchemaVerifier:
    """One schema for all prompts, or each prompt's own from its metadata (`json_schema`, a mapping or JSON text).

    A `$ref` is followed inside the schema and to the published meta-schemas; nothing is fetched.
    """

    name = "json_schema"
    version = 1

    def __init__(self, schema: dict[str, Any] | None = None) -> None:
        self._schema = None if schema is None else canonical_json(schema)

    def score(self, answer: str, prompt: Prompt) -> float:
        """1 where the answer, its last fenced block or the final answer in it parses and is valid; else 0.

        The first of these that is JSON decides. NaN and Infinity are no JSON.

        Raises:
            InputError: there is no schema, or it is not valid, or it refers to something outside.
        """
        validator = _validator(self._schema or self._schema_of(prompt))
        for text in _candidates(answer):
            try:
                value = json.loads(text, parse_constant=_refuse_constant)
            except (ValueError, RecursionError):
                continue
            return float(_is_valid(validator, value, prompt))
        return 0.0

    @staticmethod
    def _schema_of(prompt: Prompt) -> str:
        schema = prompt.metadata.get(METADATA_KEY)
        if schema is None:
            raise InputError(
                f"prompt {prompt.prompt_id} has no JSON schema: set judge.json_schema, or give the metadata "
                f"{METADATA_KEY!r}"
            )
        try:
            return canonical_json(json.loads(schema) if isinstance(schema, str) else schema)
        except ValueError as error:
            raise InputError(
                f"prompt {prompt.prompt_id} has a JSON schema that is no JSON ({error}): correct it"
            ) from None


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    """Compiled from a schema's canonical JSON; with the registry given, jsonschema fetches no remote `$ref`."""
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY

    mapping = json.loads(schema)
    try:
        require_schema(mapping)
    except ValueError as error:
        raise InputError(f"the JSON schema is not valid: {error}") from None
    return validator_for(mapping)(mapping, registry=REGISTRY)


def _candidates(answer: str) -> list[str]:
    fenced = _FENCED.findall(answer) if "```" in answer else []
    return list(dict.fromkeys([answer.strip(), *fenced[-1:], final_answer(answer)]))


def _is_valid(validator: Validator, value: Any, prompt: Prompt) -> bool:
    from referencing.exceptions import Unresolvable

    try:
        return validator.is_valid(value)
    except RecursionError:
        return False
    except Unresolvable as error:
        raise InputError(
            f"prompt {prompt.prompt_id} has a JSON schema that refers to {error.ref!r}, which it does not hold: "
            "put that under its $defs"
        ) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
