"""What pydantic finds wrong with a config, in one phrase each: the place, the value and what would do."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import ValidationError

from distill_data.config import Config
from distill_data.section import Section, sections_in, tag_of
from distill_data.student_config import NewStudent


def explain_problems(error: ValidationError) -> list[str]:
    """A phrase for every problem."""
    return [_explain(problem) for problem in error.errors() if _is_meant(problem)]


def _is_meant(problem: Any) -> bool:
    """Of the two kinds of student.model, text and from_config, only the one that the value looks like is explained."""
    kind = "str" if isinstance(problem["input"], dict) else "NewStudent"
    return not (problem["type"] in ("string_type", "model_type") and problem["loc"][-1] == kind)


def _explain(problem: Any) -> str:
    """One problem as one phrase that names the place, the value and what would do."""
    place, kind, value = _place(problem["loc"]), problem["type"], problem["input"]
    match kind:
        case "extra_forbidden":
            return f"unknown key {place}{_nearest_key(problem['loc'])}"
        case "missing":
            return f"{place} is missing"
        case "value_error":
            message = problem["msg"].removeprefix("Value error, ")
            return f"{place}: {message}" if place else message
        case "union_tag_not_found" | "union_tag_invalid":
            key = problem["ctx"]["discriminator"].strip("'")
            said = "missing" if kind == "union_tag_not_found" else repr(value[key])
            return f"{place}.{key} is {said}: use {_choices(problem['loc'])}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{place} is {value!r}: write keys and values there"
    return f"{place} is {value!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _choices(location: tuple[int | str, ...]) -> str:
    """The tags of the union that is at a place."""
    *others, last = [repr(tag_of(section)) for section in _walk(location)[1]]
    return f"{', '.join(others)} or {last}"


def _place(location: tuple[int | str, ...]) -> str:
    """Where a problem is, as `--set` would say it; pydantic also names the kinds of a union on the way."""
    return ".".join(_walk(location)[0])


def _nearest_key(location: tuple[int | str, ...]) -> str:
    """` (did you mean X?)` for an unknown key, looked up among the names of its section."""
    sections = _walk(location[:-1])[1]
    if not sections:
        return ""
    names = list(sections[0].model_fields)
    key = str(location[-1])
    swapped = [name for name in names if sorted(name) == sorted(key)]  # `modle` is `model`, though `mode` is nearer
    near = swapped or difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else f" (known keys: {', '.join(names)})"


def _walk(location: tuple[int | str, ...]) -> tuple[list[str], list[type[Section]]]:
    """The steps of a problem's location that a person would write, and which sections can be at its end."""
    steps: list[str] = []
    here: list[type[Section]] = [Config]
    for part in location:
        chosen = [section for section in here if len(here) > 1 and part == tag_of(section)]
        if chosen or (part in ("str", "NewStudent") and NewStudent in here):
            here = chosen or [NewStudent]
            continue
        steps.append(str(part))
        if not isinstance(part, int):
            fields = [section.model_fields[part] for section in here if part in section.model_fields]
            here = sections_in(fields[0].annotation) if fields else []
    return steps, here
