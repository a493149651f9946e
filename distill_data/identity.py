"""Identities: what decides an id is hashed in one canonical form; how a job is executed never is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

PROMPT_ID_LENGTH = 24
TEACHER_ID_LENGTH = 16
SEAL = "sha256"  # key of a sealed object's own hash


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, text kept as it is.

    Raises:
        TypeError: for anything without a canonical form (callables, objects, sets, NaN, keys that are no text).
    """
    return json.dumps(_checked(value, "value"), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def prompt_id(
    messages: list[dict[str, str]],
    completion: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    completion_token_ids: list[int] | None = None,
) -> str:
    """Id of a prompt: what the teacher is asked, byte for byte; references and metadata do not change it.

    Where there are any, the completion to score, its token ids, and what the source overrides of the teacher's sampling
    count too.
    """
    asked = [[message["role"], message["content"]] for message in messages]
    if completion is None and sampling is None:
        return digest(asked)[:PROMPT_ID_LENGTH]
    more = {} if completion_token_ids is None else {"completion_token_ids": completion_token_ids}
    return digest({"messages": asked, "completion": completion, "sampling": sampling, **more})[:PROMPT_ID_LENGTH]


def teacher_id(ingredients: Mapping[str, Any]) -> str:
    """Id of a teacher: a hash of everything that changes what it says."""
    return digest(dict(ingredients))[:TEACHER_ID_LENGTH]


def trace_id(teacher: str, prompt: str, sample_index: int) -> str:
    """Name of one trace, unique across teachers."""
    return f"{teacher[:8]}-{prompt}-{sample_index}"


def sampling_seed(seed: int, prompt: str, sample_index: int) -> int:
    """Seed of one trace (63 bits): restarts and later samples never repeat another trace's random numbers."""
    return int(digest([seed, prompt, sample_index])[:16], 16) >> 1


def unit_hash(seed: int, prompt: str) -> float:
    """A number in [0, 1) that belongs to a prompt under a seed; decides its side of a split for good."""
    return int(digest([seed, prompt])[:13], 16) / 16**13


def sequence_digest(inputs: Mapping[str, Any], rows: Iterable[str]) -> str:
    """SHA-256 over a description of the inputs and the content digests of rows, in their order."""
    state = hashlib.sha256(canonical_json(dict(inputs)).encode())
    for row in rows:
        state.update(b"\n" + row.encode())
    return state.hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the SHA-256 of itself added under `sha256`: a changed byte in its file is found."""
    return {**content, SEAL: _json_sha256(content)}


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """What was sealed, without its hash; an object that was never sealed as it is.

    Raises:
        ValueError: it does not have the hash that it states.
    """
    rest = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != _json_sha256(rest):
        raise ValueError("its content does not match the sha256 in it")
    return rest


def _json_sha256(content: Mapping[str, Any]) -> str:
    """Hash of what JSON keeps of an object, whatever its white space and the order of its keys."""
    kept = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _checked(value: Any, place: str) -> Any:
    """The value itself, made of JSON's own kinds only."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{place} is {value}, which has no canonical form")
        return value
    if isinstance(value, list | tuple):
        return [_checked(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{place} has the key {key!r}, which is no text")
        return {key: _checked(item, f"{place}.{key}") for key, item in value.items()}
    raise TypeError(f"{place} is a {type(value).__name__}, which has no canonical form")
