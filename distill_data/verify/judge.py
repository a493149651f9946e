"""Which verifier a config names, and which code gives its verdicts. Verifiers are imported when they are made."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Protocol

from distill_data.judge_config import (
    ChoiceJudge,
    CodeJudge,
    ExactJudge,
    JsonSchemaJudge,
    Judge,
    LlmJudge,
    MathJudge,
    NumericJudge,
    PythonJudge,
    ReasoningGymJudge,
    RegexJudge,
    Rule,
)
from distill_data.records import Prompt

SCORED_BY = {
    "reasoning_gym": ["reasoning-gym"],
    "math": ["math-verify", "latex2sympy2-extended", "sympy"],
    "regex": ["regex"],
    "json_schema": ["jsonschema"],
}
"""Packages whose version decides verdicts, by verifier."""


class Verifier(Protocol):
    """Scores answers."""

    name: str
    version: int
    """Raised with every change of this project's code after which an answer may score differently."""

    def score(self, answer: str, prompt: Prompt) -> float:
        """How right an answer is, from 0 to 1; raises where the prompt cannot be judged."""
        ...


def make_verifier(judge: Rule) -> Verifier:
    """The program that a config names.

    Raises:
        DistillDataError: it cannot be used here.
    """
    match judge:
        case ExactJudge():
            from distill_data.verify.exact import ExactVerifier

            return ExactVerifier()
        case ReasoningGymJudge():
            from distill_data.verify.reasoning_gym import ReasoningGymVerifier

            return ReasoningGymVerifier()
        case MathJudge():
            from distill_data.verify.math import MathVerifier

            return MathVerifier()
        case ChoiceJudge():
            from distill_data.verify.choice import ChoiceVerifier

            return ChoiceVerifier()
        case NumericJudge():
            from distill_data.verify.numeric import NumericVerifier

            return NumericVerifier(judge.relative_tolerance, judge.absolute_tolerance)
        case RegexJudge():
            from distill_data.verify.regex import RegexVerifier

            return RegexVerifier(judge.pattern, judge.match)
        case JsonSchemaJudge():
            from distill_data.verify.json_schema import JsonSchemaVerifier

            return JsonSchemaVerifier(judge.json_schema)
        case PythonJudge():
            from distill_data.verify.python import PythonVerifier

            return PythonVerifier(judge.function)
        case CodeJudge():
            from distill_data.verify.code import CodeVerifier
            from distill_data.verify.sandbox import Limits

            return CodeVerifier(Limits(judge.cpu_seconds, memory_mib=judge.memory_mib, output_kib=judge.output_kib))


def verifier_identity(judge: Judge) -> dict[str, Any]:
    """Which code gives the verdicts: the verifier, its version, and those of the packages that score for it.

    Of a model that judges, its teacher_id. Part of a corpus' digest: an upgraded scorer may give new verdicts, and so
    gives a new version.
    """
    if isinstance(judge, LlmJudge):
        from distill_data.teacher_identity import identify_teacher
        from distill_data.teachers.vllm_reasoning import split_identity
        from distill_data.verify.llm_judge import VERSION

        who = {"teacher_id": identify_teacher(judge.teacher).teacher_id, "samples": judge.teacher.sampling.samples}
        return {"verifier": judge.verifier, "version": VERSION, **who, "verdict": split_identity(judge.teacher)}
    verifier = make_verifier(judge)
    identity: dict[str, Any] = {"verifier": verifier.name, "version": verifier.version}
    if isinstance(judge, PythonJudge):
        identity["source_sha256"] = getattr(verifier, "source_sha256", None)
    return identity | {package: version(package) for package in SCORED_BY.get(judge.verifier, [])}
