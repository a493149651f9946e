"""The task's own scorer of reasoning_gym (https://github.com/open-thought/reasoning-gym)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from distill_data.identity import canonical_json
from distill_data.prompts.reasoning_gym import create_task
from distill_data.reasoning import final_answer
from distill_data.records import Prompt
from distill_data.verify.exact import ExactVerifier
from distill_data.verify.plain_python import is_formula, is_literal

_PARSES = re.compile(r"\b(parse_expr|sympify)\(")  # sympy's parsers evaluate what they read
_EVALUATES = re.compile(r"\b(eval|exec)\(")


def _may_be_given(task: Any) -> Callable[[str], bool]:
    """Which answers a task's scorer may see: every one, unless its code evaluates what it is given."""
    source = inspect.getsource(type(task).score_answer)
    if _PARSES.search(source):
        return is_formula
    return is_literal if _EVALUATES.search(source) else lambda answer: True


class ReasoningGymVerifier:
    """Builds each task's scorer once and scores answers with it."""

    name = "reasoning_gym"
    version = 2

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[Any, Callable[[str], bool]]] = {}
        self._exact = ExactVerifier()

    def score(self, answer: str, prompt: Prompt) -> float:
        """The best score of the whole answer and of the final answer found in it, 0 to 1.

        A task's scorer wants the bare answer and gives a sentence around it part of the score, while tasks
        whose answer is a grid or a list want the whole text: so both are tried. A prompt of another source has no
        task and is compared with its reference as `exact` does. Scorers that evaluate what they are given see plain
        literals and formulas only; any other text scores 1 where it is the task's own answer, and else 0.

        Raises:
            Exception: whatever the scorer raised, where it could score neither.
        """
        metadata = prompt.metadata
        if "task" not in metadata:
            return self._exact.score(answer, prompt)
        task, may_be_given = self._task(metadata)
        entry = metadata["entry"] | {"question": prompt.messages[-1]["content"]}
        scores: list[float] = []
        failure: Exception | None = None
        for candidate in dict.fromkeys([answer, final_answer(answer)]):
            if not may_be_given(candidate):
                scores.append(float(candidate.strip() == str(entry.get("answer")).strip()))
                continue
            try:
                scores.append(float(task.score_answer(candidate, entry)))
            except Exception as error:
                failure = error
        if not scores and failure is not None:
            raise failure
        return max(scores)

    def _task(self, metadata: dict[str, Any]) -> tuple[Any, Callable[[str], bool]]:
        """The task with its options, which some scorers read, and what it may be given; built on first use."""
        options = metadata.get("options", {})
        key = f"{metadata['task']} {canonical_json(options)}"
        if key not in self._tasks:
            task = create_task(metadata["task"], 1, metadata.get("seed", 0), options)
            self._tasks[key] = task, _may_be_given(task)
        return self._tasks[key]
