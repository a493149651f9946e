"""Verifiers: each scores one answer against its prompt; `judge_answers` runs one over many."""

from distill_data.verify.judge import Verdicts, Verifier, judge_answers, make_verifier

__all__ = ["Verdicts", "Verifier", "judge_answers", "make_verifier"]
