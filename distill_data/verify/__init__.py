"""Verifiers: each scores one answer against its prompt; `judge_answers` runs one over many."""

from distill_data.verify.judge import Verdicts, Verifier, judge_answers, make_verifier, verifier_identity
from distill_data.verify.reasoning_gym import require_safe_scorer

__all__ = [
    "Verdicts", "Verifier", "judge_answers", "make_verifier", "require_safe_scorer", "verifier_identity",
]  # fmt: skip
