"""The step in which models judge: their engines start when the teacher's is gone, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from distill_data.build import BuildPlan, generate_missing, replanned
from distill_data.session import end_early_session
from distill_data.teachers.generation import NO_BUDGET, NOTHING_GENERATED, Budget, GenerationProgress, GenerationReport


def generate_verdicts(
    build: BuildPlan,
    on_progress: Callable[[GenerationProgress], None],
    generated: GenerationReport = NOTHING_GENERATED,
    *,
    budget: Budget = NO_BUDGET,
    say: Callable[[str], object] = lambda _: None,
    verbose: bool = False,
) -> GenerationReport:
    """Have every answer judged that was not yet; starts no engine where none is left.

    `budget` is that of the whole build, of which `generated` took its part.

    Raises:
        TeacherError: no worker can be kept alive; every verdict that was committed is kept.
    """
    total = NOTHING_GENERATED
    for judging in replanned(build).judgings:
        if not len(judging.plan.missing):
            continue
        spent = generated + total
        if (limit := budget.reached(spent.tokens, spent.seconds)) is not None:
            return replace(total, paused=limit)
        end_early_session(unless=judging.store.teacher_id)
        left = budget.after(spent)
        _, report = generate_missing(judging, on_progress, budget=left, say=say, verbose=verbose)
        total += report
        if report.paused is not None:
            spent = generated + total
            return replace(total, paused=budget.reached(spent.tokens, spent.seconds) or report.paused)
    return total
