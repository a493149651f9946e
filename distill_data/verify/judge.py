"""Run a verifier over many answers; a verifier that raises marks its row, never the run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

import numpy as np

from distill_data.config import Judge
from distill_data.records import Prompt
from distill_data.verify.exact import ExactVerifier
from distill_data.verify.reasoning_gym import ReasoningGymVerifier


class Verifier(Protocol):
    """Scores answers."""

    name: str
    version: int
    """Raised with every change of this project's code after which an answer may score differently."""

    def score(self, answer: str, prompt: Prompt) -> float:
        """How right an answer is, from 0 to 1; raises where the prompt cannot be judged."""
        ...


@dataclass(frozen=True)
class Verdicts:
    """What a verifier said of n answers.

    `score` is float32 [n], NaN where the verifier raised; `passed` is bool [n]; `error` holds what it raised.
    """

    score: np.ndarray
    passed: np.ndarray
    error: list[str | None]


def make_verifier(judge: Judge) -> Verifier:
    """The verifier that a config names."""
    return ExactVerifier() if judge.verifier == "exact" else ReasoningGymVerifier()


def verifier_identity(judge: Judge) -> dict[str, str | int]:
    """Which code gives the verdicts: the verifier, its version, and that of the package that scores for it.

    Part of a corpus' digest: an upgraded scorer may give new verdicts, and so gives a new version.
    """
    verifier = make_verifier(judge)
    identity: dict[str, str | int] = {"verifier": verifier.name, "version": verifier.version}
    if judge.verifier == "reasoning_gym":
        identity["reasoning-gym"] = version("reasoning-gym")
    return identity


def judge_answers(verifier: Verifier, answers: list[str], prompts: list[Prompt], pass_score: float) -> Verdicts:
    """Score every answer against the prompt at the same place; at least `pass_score` passes."""
    scores = np.full(len(answers), np.nan, np.float64)  # float32 would turn 0.9 into less than 0.9
    errors: list[str | None] = [None] * len(answers)
    for row, (answer, prompt) in enumerate(zip(answers, prompts, strict=True)):
        try:
            scores[row] = verifier.score(answer, prompt)
        except Exception as error:
            errors[row] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Verdicts(scores.astype(np.float32), scores >= pass_score, errors)
