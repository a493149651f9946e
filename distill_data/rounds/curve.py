"""What every round came to on the same held-out rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from distill_data.corpus.read import Corpus
from distill_data.parquet import place
from distill_data.student.job import StudentPlan, report_student
from distill_data.student.result import EvaluationResult

CURVE_NAME = "rounds.json"


@dataclass(frozen=True)
class RoundResult:
    """A round: its version and student, and how that one is on the first version's held-out rows.

    `first_loss` and `last_loss` are those of the round's training, in nats per token of its own version: in round 0 on
    the teacher's answers, later on the student's. `steps` and `tokens` are this round's alone.
    """

    round: int
    corpus: str
    student: str
    answers: int  # that the student was asked for
    traces: int
    steps: int
    tokens: int
    first_loss: float
    last_loss: float
    held_out: EvaluationResult


@dataclass(frozen=True)
class RoundsReport:
    """The held-out curve of the rounds, and what generation took this time.

    `begun` is the student before any training; `paused` says why the loop stopped before its end.
    """

    corpus: str
    path: str
    begun: EvaluationResult | None
    rounds: tuple[RoundResult, ...]
    generated_traces: int
    generated_tokens: int
    paused: str | None


def result_of(number: int, student: StudentPlan, first: Corpus, answers: int) -> RoundResult:
    """What a trained and measured student's folder says."""
    report = report_student(replace(student, corpus=first), created=False)
    assert isinstance(report.after, EvaluationResult)  # only language models play rounds
    return RoundResult(
        round=number,
        corpus=student.corpus.reference,
        student=student.folder.name,
        answers=answers,
        traces=report.traces,
        steps=report.steps,
        tokens=report.tokens,
        first_loss=report.first_loss,
        last_loss=report.last_loss,
        held_out=report.after,
    )


def write_curve(report: RoundsReport) -> Path:
    """rounds.json in the folder of the last student."""
    file = Path(report.path) / CURVE_NAME
    curve = {"corpus": report.corpus, "begun": report.begun and asdict(report.begun)}
    curve |= {"rounds": [asdict(result) for result in report.rounds]}
    place((json.dumps(curve, indent=2) + "\n").encode(), file)
    return file


def rounds_summary(report: RoundsReport) -> str:
    """The curve as a table: a line before training, and one per round."""
    held_out = report.rounds[0].held_out
    lines = [
        f"rounds of {report.corpus}, measured on its {held_out.traces:,} held-out traces ({held_out.tokens:,} tokens)",
        "  round  learnt from                 traces   steps      KL  cross-entropy   top-1",
    ]
    if report.begun is not None:
        lines.append(_row("-", "nothing", "", "", report.begun))
    for result in report.rounds:
        traces, steps = f"{result.traces:,}", f"{result.steps:,}"
        lines.append(_row(str(result.round), result.corpus, traces, steps, result.held_out))
    if report.paused is not None:
        lines.append(f"  paused      {report.paused}: the same command goes on")
    else:
        lines.append(f"  folder      {report.path}, its {CURVE_NAME} has the curve")
    return "\n".join(lines)


def _row(number: str, corpus: str, traces: str, steps: str, found: EvaluationResult) -> str:
    kl = "" if found.kl is None else f"{found.kl:.3f}"
    top1 = "" if found.top1_agreement is None else f"{found.top1_agreement:.1%}"
    return f"  {number:>5}  {corpus:<26}{traces:>8}{steps:>8}{kl:>8}{found.cross_entropy:>15.3f}{top1:>8}"
