"""What an evaluation found: every model's figures, and the student's less those of each other one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_data.comparison.curves import Interval
from distill_data.evaluation.answers import Answers
from distill_data.evaluation.cost import Cost
from distill_data.evaluation.entrants import Entrant, Role, samples_of
from distill_data.evaluation.held_out import Likelihood
from distill_data.evaluation.statistics import (
    Difference,
    paired_ratios,
    paired_shares,
    pass_at_k,
    ratio_interval,
    share_interval,
)
from distill_data.identity import digest
from distill_data.parquet import place
from distill_data.student.job import StudentPlan, StudentReport


@dataclass(frozen=True)
class Measured:
    """An entrant with all that was measured; None for what was not."""

    entrant: Entrant
    answers: Answers | None
    likelihood: Likelihood | None
    cost: Cost
    tasks: dict[str, dict[str, float]]


@dataclass(frozen=True)
class ModelFigures:
    """One model: `pass_at` by k, empty where nothing was asked; `cut` and `failed` are shares of the answers; NLL
    (`cross_entropy`) and KL in nats per token of the held-out traces; `tasks` by lm-evaluation-harness task and metric.
    """

    name: str
    role: Role
    model: str
    cost: Cost
    pass_at: dict[int, Interval]
    mean_tokens: float | None
    cut: float | None
    failed: float | None
    cross_entropy: Interval | None
    kl: Interval | None
    top1_agreement: float | None
    calibration_error: float | None
    tasks: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Paired:
    """The student's figure less that of `other`, on the same prompts."""

    other: str
    figure: str
    difference: Difference


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found; the file `path` holds the same, and `page` shows it. `notes` say what was not measured."""

    student: StudentReport
    path: str
    page: str
    prompts: int
    samples: int
    held_out_traces: int
    held_out_tokens: int
    models: list[ModelFigures]
    differences: list[Paired]
    notes: list[str]


def findings(plan: StudentPlan, student: StudentReport, measured: Sequence[Measured], notes: list[str]) -> Evaluation:
    """Estimates with intervals of each, and paired differences to the student."""
    samples = samples_of(plan)
    chosen = plan.student.evaluate.k
    ks = sorted({k for k in chosen if k <= samples} if chosen else {1, samples})
    ours = next(one for one in measured if one.entrant.role == "student")
    asked, shown = ours.answers, ours.likelihood
    file = findings_file(plan)
    return Evaluation(
        student=student,
        path=str(file),
        page=str(file.with_suffix(".html")),
        prompts=0 if asked is None else len(asked.passed),
        samples=samples,
        held_out_traces=0 if shown is None else shown.traces,
        held_out_tokens=0 if shown is None else int(shown.tokens.sum()),
        models=[_figures(one, ks, samples) for one in measured],
        differences=[pair for one in measured if one is not ours for pair in _differences(ours, one, ks, samples)],
        notes=notes,
    )


def write_findings(found: Evaluation) -> Path:
    """The JSON file in the student's folder."""
    file = Path(found.path)
    place((json.dumps(asdict(found), indent=2) + "\n").encode(), file)
    return file


def findings_file(plan: StudentPlan) -> Path:
    """Named by what was asked of whom."""
    asked = {"corpus": plan.corpus.manifest.digest, "evaluate": plan.student.evaluate.model_dump()}
    return plan.folder / f"models-{digest(asked)[:8]}.json"


def _figures(one: Measured, ks: list[int], samples: int) -> ModelFigures:
    answers, shown = one.answers, one.likelihood
    return ModelFigures(
        name=one.entrant.name,
        role=one.entrant.role,
        model=one.entrant.reference,
        cost=one.cost,
        pass_at={} if answers is None else {
            k: share_interval(pass_at_k(answers.correct, samples, k), samples // k) for k in ks
        },
        mean_tokens=None if answers is None else answers.mean_tokens,
        cut=None if answers is None else answers.cut,
        failed=None if answers is None else answers.failed,
        cross_entropy=None if shown is None else ratio_interval(shown.cross_entropy, shown.tokens),
        kl=None if shown is None or shown.kl is None else ratio_interval(shown.kl, shown.tokens),
        top1_agreement=None if shown is None else shown.top1_agreement,
        calibration_error=None if shown is None else shown.calibration_error,
        tasks=one.tasks,
    )  # fmt: skip


def _differences(ours: Measured, other: Measured, ks: list[int], samples: int) -> list[Paired]:
    name, found = other.entrant.name, []
    if ours.answers is not None and other.answers is not None:
        correct = ours.answers.correct, other.answers.correct
        for k in ks:
            shares = [pass_at_k(one, samples, k) for one in correct]
            found.append(Paired(name, f"pass@{k}", paired_shares(shares[0], shares[1], samples)))
    if ours.likelihood is not None and other.likelihood is not None:
        sums = ours.likelihood.cross_entropy, other.likelihood.cross_entropy
        found.append(Paired(name, "NLL", paired_ratios(sums[0], sums[1], ours.likelihood.tokens)))
    return found
