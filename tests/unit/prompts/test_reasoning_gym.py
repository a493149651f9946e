from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from distill_data.errors import InputError
from distill_data.prompt_config import ReasoningGymPrompts
from distill_data.prompts.reasoning_gym import as_json, create_task, import_reasoning_gym, open_task

OPTIONS = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}


def source(task: str = "chain_sum", size: int = 5, **more: Any) -> ReasoningGymPrompts:
    return ReasoningGymPrompts(source="reasoning_gym", task=task, size=size, **more)


def test_prompts_are_the_tasks_items() -> None:
    prompts, revision = open_task(source(seed=7, options=OPTIONS, name="sums"))
    items = list(import_reasoning_gym().create_dataset("chain_sum", size=5, seed=7, **OPTIONS))
    made = list(prompts)
    assert [prompt.messages for prompt in made] == [[{"role": "user", "content": item["question"]}] for item in items]
    assert [prompt.reference for prompt in made] == [item["answer"] for item in items]
    assert {prompt.source for prompt in made} == {"sums"}
    first = made[0].metadata
    assert json.loads(json.dumps(first)) == first
    assert first["entry"]["metadata"]["expression"] == items[0]["metadata"]["expression"]
    assert (first["task"], first["seed"], first["index"], first["options"]) == ("chain_sum", 7, 0, OPTIONS)
    assert revision["seed"] == 7
    assert revision["size"] == 5
    assert revision["options"] == OPTIONS


def test_raising_size_keeps_the_prompts_there_were() -> None:
    few, _ = open_task(source(size=3))
    many, _ = open_task(source(size=6))
    assert list(many)[:3] == list(few)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("chain_sm", {}, "no task 'chain_sm': use chain_sum"),
        ("chain_sum", {"min_term": 1}, "no option 'min_term': use min_terms"),
        ("chain_sum", {"min_terms": 3, "max_terms": 2}, "max_terms must be >= min_terms"),
        ("chain_sum", {"seed": 3}, "seed stands in options: move it beside task:"),
        ("graph_color", {}, "which JSON cannot keep"),
        ("arc_agi", {}, "its scorer needs Python tuples"),
    ],
)
def test_bad_task_gets_one_clear_line(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        list(open_task(source(task, 1, options=options))[0])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_pycosat_is_missed_only_by_the_task_that_needs_it() -> None:
    pytest.importorskip("reasoning_gym")
    try:
        import pycosat  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError:
        assert "pycosat" not in sys.modules
        with pytest.raises(InputError, match="pip install pycosat"):
            list(open_task(source("zebra_puzzles", 1))[0])
    else:
        assert len(list(open_task(source("zebra_puzzles", 1))[0])) == 1


def test_values_survive_json() -> None:
    value = {"a": (1, (2.5, None)), "b": np.int64(3), "c": np.arange(3), "d": np.str_("x"), "e": np.float32(0.5)}
    assert as_json(value, "here") == {"a": [1, [2.5, None]], "b": 3, "c": [0, 1, 2], "d": "x", "e": 0.5}
    with pytest.raises(InputError, match=r"here\.a is a set, which has no JSON form"):
        as_json({"a": {1}}, "here")
    with pytest.raises(InputError, match="has the key 1"):
        as_json({1: 2}, "here")


def test_task_scores_its_own_answers() -> None:
    task = create_task("chain_sum", 1, 0)
    assert task.score_answer(task[0]["answer"], task[0]) == 1.0
