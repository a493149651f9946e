"""How likely the teacher's held-out traces are to an entrant, prompt by prompt."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from distill_data.evaluation.entrants import Entrant
from distill_data.student.job import StudentPlan
from distill_data.student.label_kind import HeldOut
from distill_data.student.labels import StudentLabels
from distill_data.student.result import TraceFigures


@dataclass(frozen=True)
class HeldOutRows:
    """The traces that everyone is measured on, and the prompt of each: int64 [traces], from 0."""

    shown: HeldOut
    prompt_of: np.ndarray


@dataclass(frozen=True)
class Likelihood:
    """An entrant's figures of each of P prompts, float64 [P] sums over its tokens, and over all of them.

    `kl` and `top1_agreement` are None where the labels do not tell.
    """

    traces: int
    tokens: np.ndarray
    cross_entropy: np.ndarray
    kl: np.ndarray | None
    top1_agreement: float | None
    calibration_error: float | None


def held_out_labels(plan: StudentPlan) -> HeldOutRows | None:
    """The held-out traces in the corpus' tokens, as the student learns them; None where it has other tokens."""
    shown = StudentLabels(plan.corpus, plan.student, plan.config.teacher).held_out(plan.student.evaluate.max_traces)
    if shown.kind.compares != "ids":
        return None
    traces = plan.corpus.head("traces", "validation", plan.student.evaluate.max_traces)
    prompts = traces["prompt_id"].combine_chunks().dictionary_encode()
    return HeldOutRows(shown, prompts.indices.to_numpy().astype(np.int64))


def measure(entrant: Entrant, rows: HeldOutRows, plan: StudentPlan) -> Likelihood:
    """Measure an entrant that has the corpus' tokens; a teacher is read from its labels, and no weights are loaded.

    Raises:
        ModelError: the model cannot be loaded.
        StudentError: no trace fits `student.train.max_length`.
    """
    from distill_data.student.evaluation import evaluate_teacher

    evaluate, max_length = plan.student.evaluate, plan.student.train.max_length
    labels, kind = rows.shown.labels, rows.shown.kind
    if entrant.role == "teacher":
        return _by_prompt(evaluate_teacher(labels, evaluate, max_length, kind), rows.prompt_of)
    return _by_prompt(_evaluated(entrant, labels, plan, rows), rows.prompt_of)


def _evaluated(entrant: Entrant, labels: pa.Table, plan: StudentPlan, rows: HeldOutRows) -> TraceFigures:
    import torch

    from distill_data.student.evaluation import evaluate_traces
    from distill_data.student.model import load_saved_student

    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    gc.collect()  # modules hold themselves in cycles, and two big models do not fit
    model = load_saved_student(entrant.folder, trust_remote_code=entrant.config.teacher.trust_remote_code)
    evaluate, max_length = plan.student.evaluate, plan.student.train.max_length
    return evaluate_traces(model.to(device), labels, evaluate, max_length, rows.shown.kind)


def _by_prompt(found: TraceFigures, prompt_of: np.ndarray) -> Likelihood:
    _, prompt = np.unique(prompt_of[found.rows], return_inverse=True)

    def summed(values: np.ndarray) -> np.ndarray:
        return np.bincount(prompt, values)

    result = found.result
    return Likelihood(
        traces=result.traces,
        tokens=summed(found.tokens),
        cross_entropy=summed(found.sums["cross_entropy"]),
        kl=summed(found.sums["kl"]) if "kl" in found.sums else None,
        top1_agreement=result.top1_agreement,
        calibration_error=result.calibration_error,
    )
