"""Which prompts everyone is asked: all that are held out of a corpus version and have a judge.

Not those of its held-out rows alone: where only passed traces are kept, these are prompts that the teacher can answer,
which would flatter it.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.corpus.held_out import held_out_of
from distill_data.corpus.read import Corpus
from distill_data.prompts import PromptSet
from distill_data.screening import prompts_of
from distill_data.student.job import StudentPlan


def asked_prompts(plan: StudentPlan) -> tuple[PromptSet | None, list[str]]:
    """The held-out prompts that everyone answers; None where nobody does, and then why.

    Raises:
        InputError: a source cannot be read.
    """
    settings, evaluate = plan.config, plan.student.evaluate
    if not evaluate.generate:
        return None, ["nothing is generated: student.evaluate.generate is false"]
    if settings.teacher.mode != "generate":
        return None, [f"nothing is generated: teacher.mode is {settings.teacher.mode}"]
    if not settings.judges:
        return None, ["nothing is generated: there is no judge to say what is right"]
    prompts = held_out_prompts(settings, plan.corpus, evaluate.max_prompts)
    if not len(prompts.table):
        return None, ["nothing is generated: no prompt that is held out has a judge"]
    return prompts, []


def held_out_prompts(settings: Config, corpus: Corpus, limit: int) -> PromptSet:
    """The config's prompts that are held out of a version and have a judge, at most `limit`, in their order.

    Which these are is what `corpus.held_out` says.

    Raises:
        InputError: a source cannot be read.
    """
    prompts = prompts_of(settings)
    judged = [source.label for source in settings.prompts if settings.judge_of(source) is not None]
    rows = held_out_rows(prompts.table, corpus, judged, limit)
    return replace(prompts, table=prompts.take(rows))


def held_out_rows(prompts: pa.Table, corpus: Corpus, sources: list[str], limit: int) -> np.ndarray:
    """Rows of the prompts of these sources that are held out of a version, ascending; see `held_out_prompts`."""
    away, hashes = held_out_of(prompts, corpus)
    wanted = pc.is_in(prompts["source"], value_set=pa.array(sources, pa.string())).to_numpy()
    rows = np.flatnonzero(away & wanted)
    return np.sort(rows[np.argsort(hashes[rows], kind="stable")[:limit]])
