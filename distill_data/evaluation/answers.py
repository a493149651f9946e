"""What an entrant answers to the held-out prompts: planned and judged as a teacher's traces are."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.build import BuildPlan, plan_build, replanned
from distill_data.config import Config
from distill_data.corpus.assembly import rows_of, slices, split_part
from distill_data.corpus.judging import Judging
from distill_data.errors import TeacherError
from distill_data.evaluation.entrants import Entrant
from distill_data.prompts import PromptSet
from distill_data.teachers.vllm_reasoning import splitter_of

_COLUMNS = ["completion", "prompt_suffix", "finish_reason"]


@dataclass(frozen=True)
class Answers:
    """An entrant's answers to P prompts, S each.

    `passed`: bool [P, S]; an answer without a verdict did not pass. Shares of all answers: `cut` ended at `max_tokens`
    or the context, `failed` has no text or no verdict.
    """

    passed: np.ndarray
    mean_tokens: float
    cut: float
    failed: float

    @property
    def correct(self) -> np.ndarray:
        """Right answers of each prompt: int64 [P]."""
        return self.passed.sum(axis=1)


@dataclass(frozen=True)
class _Judged:
    """What `Judging` looks at."""

    config: Config
    prompts: PromptSet
    teacher_id: str


def plan_answers(entrant: Entrant, prompts: PromptSet) -> BuildPlan:
    """What the entrant has still to answer; starts nothing."""
    return plan_build(entrant.config, prompts)


def judge_answers(build: BuildPlan) -> Answers:
    """Judge what was answered, or look the verdicts up.

    Raises:
        TeacherError: answers are still missing.
    """
    done = replanned(build)
    if len(done.plan.missing):
        raise TeacherError(
            f"{len(done.plan.missing):,} of {done.plan.wanted:,} answers of {build.config.teacher.model} are still "
            "missing: run the same command again"
        )
    finished = done.plan.finished
    split = splitter_of(build.config.teacher, build.identity.source)
    tokens = finished["completion_tokens"].to_numpy()
    passed, cut, failed = [], 0, 0
    with Judging(_Judged(build.config, build.prompts, build.store.teacher_id)) as judging:
        for part in slices(tokens):
            rows = rows_of(finished, part)
            said = build.store.read(rows.select(["part", "row"]), _COLUMNS)
            verdicts = judging.verdicts(rows, [one.answer for one in split_part(said, split)])
            passed.append(pc.fill_null(verdicts["passed"], False).to_numpy(zero_copy_only=False))
            failed += verdicts["passed"].null_count
            reasons = pa.array(["length", "context"])
            cut += int(pc.sum(pc.is_in(said["finish_reason"], value_set=reasons)).as_py() or 0)
    all_passed = np.concatenate(passed)
    answers = len(all_passed)
    return Answers(
        all_passed.reshape(len(build.prompts.table), -1), float(tokens.mean()), cut / answers, failed / answers
    )
