"""The task's own scorer of reasoning_gym (https://github.com/open-thought/reasoning-gym)."""

from __future__ import annotations

import inspect
import re
from typing import Any

from distill_data.errors import ConfigError
from distill_data.identity import canonical_json
from distill_data.prompt_config import ReasoningGymPrompts
from distill_data.prompts.reasoning_gym import create_task
from distill_data.reasoning import final_answer
from distill_data.records import Prompt
from distill_data.verify.exact import ExactVerifier

# What a scorer calls to run a text as code; sympy's parsers evaluate it too.
_RUNS_TEXT = re.compile(r"\b(eval|exec|parse_expr|sympify)\(")


def require_safe_scorer(source: ReasoningGymPrompts) -> None:
    """Refuse a task whose scorer runs the teacher's answer as code: it would run here, without a sandbox.

    Raises:
        ConfigError: the task's scorer calls `eval`, `exec` or a sympy parser.
    """
    task = create_task(source.task, 1, source.seed, source.options)
    if _RUNS_TEXT.search(inspect.getsource(type(task).score_answer)):
        raise ConfigError(
            f"source {source.label!r}: the scorer of {source.task} runs the teacher's answer as code, and this version "
            "has no sandbox for it: choose another task, or leave out judge:"
        )


class ReasoningGymVerifier:
    """Builds each task's scorer once and scores answers with it."""

    name = "reasoning_gym"
    version = 1

    def __init__(self) -> None:
        self._tasks: dict[str, Any] = {}
        self._exact = ExactVerifier()

    def score(self, answer: str, prompt: Prompt) -> float:
        """The best score of the whole answer and of the final answer found in it, 0 to 1.

        A task's scorer wants the bare answer and gives a sentence around it part of the score, while tasks
        whose answer is a grid or a list want the whole text: so both are tried. A prompt of another source has no
        task and is compared with its reference as `exact` does.

        Raises:
            Exception: whatever the scorer raised, where it could score neither.
        """
        metadata = prompt.metadata
        if "task" not in metadata:
            return self._exact.score(answer, prompt)
        task = self._task(metadata)
        entry = metadata["entry"] | {"question": prompt.messages[-1]["content"]}
        scores: list[float] = []
        failure: Exception | None = None
        for candidate in dict.fromkeys([answer, final_answer(answer)]):
            try:
                scores.append(float(task.score_answer(candidate, entry)))
            except Exception as error:
                failure = error
        if not scores and failure is not None:
            raise failure
        return max(scores)

    def _task(self, metadata: dict[str, Any]) -> Any:
        """The task with its options, which some scorers read; built on first use."""
        options = metadata.get("options", {})
        key = f"{metadata['task']} {canonical_json(options)}"
        if key not in self._tasks:
            self._tasks[key] = create_task(metadata["task"], 1, metadata.get("seed", 0), options)
        return self._tasks[key]
