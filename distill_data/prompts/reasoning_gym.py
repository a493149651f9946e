"""Prompts from reasoning_gym's procedural tasks (https://github.com/open-thought/reasoning-gym)."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np

from distill_data.errors import InputError
from distill_data.prompt_config import ReasoningGymPrompts
from distill_data.records import Prompt


def import_reasoning_gym() -> ModuleType:
    """The reasoning_gym package, imported without its noise and, where pycosat is missing, without that.

    pycosat is published as source only, so a machine without a C compiler does not have it; only
    zebra_puzzles calls it, and only that task then raises InputError.
    """
    missing = "pycosat" not in sys.modules and importlib.util.find_spec("pycosat") is None
    if missing:
        placeholder = ModuleType("pycosat")
        placeholder.solve = placeholder.itersolve = _needs_pycosat  # type: ignore[attr-defined]
        sys.modules["pycosat"] = placeholder
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # cellpylib writes invalid escapes
            return importlib.import_module("reasoning_gym")
    finally:
        if missing:
            del sys.modules["pycosat"]


def open_task(source: ReasoningGymPrompts) -> tuple[Iterator[Prompt], dict[str, Any]]:
    """The prompts of a source, made one by one, and what makes them (for the manifest).

    A prompt's metadata holds `task`, `seed`, `index`, `options` and `entry` (the task's item without its
    question), from which the task's own scorer judges answers.

    Raises:
        InputError: unknown task or option, a value the task refuses, or an item that JSON cannot keep.
    """
    data = create_task(source.task, source.size, source.seed, source.options)
    revision = {
        "reasoning_gym": version("reasoning_gym"),
        "task": source.task,
        "seed": source.seed,
        "size": source.size,
        "options": source.options,
    }
    return _prompts(source, data), revision


def create_task(task: str, size: int, seed: int, options: Mapping[str, Any] | None = None) -> Any:
    """A reasoning_gym dataset; items by index, `score_answer(answer, entry)` gives 0 to 1.

    Raises:
        InputError: unknown task or option (the nearest names are given), or a value the task refuses.
    """
    gym = import_reasoning_gym()
    from reasoning_gym.factory import DATASETS

    options = dict(options or {})
    if task not in DATASETS:
        raise InputError(f"reasoning_gym has no task {task!r}: use {_nearest(task, list(DATASETS))}")
    known = [field.name for field in fields(DATASETS[task][1])]
    for option in options:
        if option in ("seed", "size"):
            raise InputError(f"reasoning_gym task {task!r}: {option} stands in options: move it beside task:")
        if option not in known:
            raise InputError(f"reasoning_gym task {task!r} has no option {option!r}: use {_nearest(option, known)}")
    try:
        return gym.create_dataset(task, size=size, seed=seed, **options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"reasoning_gym task {task!r} refuses options {options} ({_one_line(error)}): correct them"
        ) from error


def _prompts(source: ReasoningGymPrompts, data: Any) -> Iterator[Prompt]:
    for index in range(source.size):
        place = f"reasoning_gym task {source.task!r}, prompt {index}"
        try:
            item = data[index]
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{place} cannot be made ({_one_line(error)}): change seed or options") from error
        entry = {key: as_json(value, f"{place}, {key}") for key, value in item.items() if key != "question"}
        if index == 0:
            _check_scorer(source, data, item, entry)
        answer = entry.get("answer")
        yield Prompt(
            [{"role": "user", "content": item["question"]}],
            source.label,
            None if answer is None else str(answer),
            {
                "task": source.task,
                "seed": source.seed,
                "index": index,
                "options": as_json(source.options, f"reasoning_gym task {source.task!r}, options"),
                "entry": entry,
            },
        )


def _check_scorer(source: ReasoningGymPrompts, data: Any, item: dict[str, Any], entry: dict[str, Any]) -> None:
    """Refuse a task whose scorer reads an entry kept as JSON otherwise than the original (tuples, mostly)."""
    stored = entry | {"question": item["question"]}
    try:
        same = data.score_answer(item["answer"], item) == data.score_answer(item["answer"], stored)
    except Exception:
        same = False
    if not same:
        raise InputError(
            f"reasoning_gym task {source.task!r} cannot be judged from stored prompts "
            "(its scorer needs Python tuples): use another task"
        )


def as_json(value: Any, place: str) -> Any:
    """A value made of JSON's own kinds: tuples become lists, numpy scalars and arrays plain values.

    Raises:
        InputError: something without a JSON form, named by its place.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return [as_json(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{place} has the key {key!r}, which JSON cannot keep: use another task")
        return {str(key): as_json(item, f"{place}.{key}") for key, item in value.items()}
    raise InputError(f"{place} is a {type(value).__name__}, which has no JSON form: use another task")


def _needs_pycosat(*_: Any, **__: Any) -> Any:
    raise InputError("reasoning_gym's zebra_puzzles needs pycosat: pip install pycosat (needs a C compiler)")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return " or ".join(near) if near else f"one of {', '.join(sorted(known))}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
