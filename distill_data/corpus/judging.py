"""Verdicts of a version's traces: looked up where their verifier judged them before, else judged now and kept."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.judge_config import Judge, LlmJudge
from distill_data.prompts import PromptSet
from distill_data.records import Prompt, table_to_prompts
from distill_data.teachers.vllm_reasoning import split_identity
from distill_data.verify import VerifierPool, verifier_identity
from distill_data.verify.teacher_verdicts import TeacherVerdicts
from distill_data.verify.verdict_store import VERDICT_SCHEMA, VerdictStore, judged_as, verdict_keys

# Errors that are never kept: those that tell of the machine as much as of the answer, and those of a model that judges,
# whose own trace store says what it said and may say it again.
UNDECIDED = "^(verifier_(timeout|crashed)|judge_(failed|unreadable)):"
_ROWS_AT_ONCE = 1024
_COMMIT_SECONDS = 5.0  # what a kill may cost; a part of its own for every few rows would cost more than judging them
_OUTCOME = pa.schema([("score", pa.float64()), ("verdict_error", pa.string()), ("passed", pa.bool_())])


class Judged(Protocol):
    """Whose traces are judged, and what they answer: an assembly, or an evaluation."""

    @property
    def config(self) -> Config:
        """The judges, their sources, and the teacher that answered."""
        ...

    @property
    def prompts(self) -> PromptSet:
        """What was asked."""
        ...

    @property
    def teacher_id(self) -> str:
        """Whose traces."""
        ...


class SourceJudge:
    """One judge, what it said before, and its processes once there is something new to judge."""

    def __init__(self, judge: Judge, job: Judged):
        self._judge = judge
        self._root = job.config.root
        self._store = VerdictStore(job.config.root, job.teacher_id, _ingredients(judge, job))
        self._pool: VerifierPool | TeacherVerdicts | None = None
        self._fresh: list[pa.Table] = []
        self._committed = time.monotonic()

    def verdicts(self, keys: pa.Array, answers: list[str], prompts: pa.Table, prompt_at: np.ndarray) -> pa.Table:
        """Rows of _OUTCOME; answer i is one to row prompt_at[i] of `prompts` (PROMPT_SCHEMA)."""
        found = self._store.find(keys)
        missing = pc.and_(pc.is_null(found["score"]), pc.is_null(found["error"])).to_numpy()
        if missing.any():
            asked = table_to_prompts(prompts)
            rows = np.flatnonzero(missing)
            fresh = self._score(keys.take(pa.array(rows)), [(answers[row], asked[prompt_at[row]]) for row in rows])
            order = np.where(missing, np.cumsum(missing) - 1 + len(found), np.arange(len(found)))
            found = pa.concat_tables([found, fresh]).take(order)
        passed = pc.greater_equal(found["score"], self._judge.pass_score)
        return pa.table([found["score"], found["error"], passed], schema=_OUTCOME)

    def close(self) -> None:
        """Keep what it said, and end its processes."""
        try:
            self._commit()
        finally:
            if self._pool is not None:
                self._pool.close()

    def _score(self, keys: pa.Array, answers: list[tuple[str, Prompt]]) -> pa.Table:
        if self._pool is None:
            if isinstance(self._judge, LlmJudge):
                self._pool = TeacherVerdicts(self._judge, self._root)
            else:
                self._pool = VerifierPool(self._judge)
        said = []
        for start in range(0, len(answers), _ROWS_AT_ONCE):
            scored = self._pool.score(answers[start : start + _ROWS_AT_ONCE])
            scores = np.array([score for score, _ in scored])
            errors = pa.array([error for _, error in scored], pa.string())
            columns = [keys.slice(start, len(scored)), pa.array(scores, mask=np.isnan(scores)), errors]
            said.append(pa.table(columns, schema=VERDICT_SCHEMA))
            undecided = pc.fill_null(pc.match_substring_regex(errors, UNDECIDED), False)
            self._fresh.append(said[-1].filter(pc.invert(undecided)))
            if time.monotonic() - self._committed > _COMMIT_SECONDS:
                self._commit()
        return pa.concat_tables(said)

    def _commit(self) -> None:
        fresh = pa.concat_tables([VERDICT_SCHEMA.empty_table(), *self._fresh])
        if len(fresh):
            self._store.commit(fresh)
        self._fresh, self._committed = [], time.monotonic()


class Judging:
    """The judges of a job's sources; a context manager that ends their processes."""

    def __init__(self, job: Judged):
        self._job = job
        judges, sources = job.config.judges, job.config.prompts
        self._judges = [SourceJudge(judge, job) for judge in judges]
        own = [job.config.judge_of(source) for source in sources]
        by_source = np.array([-1 if judge is None else judges.index(judge) for judge in own])
        labels = pa.array([source.label for source in sources])
        self._of_prompt = by_source[pc.index_in(job.prompts.table["source"], value_set=labels).to_numpy()]

    def __enter__(self) -> Judging:
        return self

    def __exit__(self, *_: object) -> None:
        for judge in self._judges:
            judge.close()

    def has_judge(self, rows: pa.Table) -> pa.Array:
        """Whether the source of each row's prompt has a judge."""
        return pa.array(self._of_prompt[rows["prompt_row"].to_numpy()] >= 0)

    def verdicts(self, rows: pa.Table, answers: list[str]) -> pa.Table:
        """Score, passed and verdict_error of rows of `Assembly.finished`; null where nothing was judged."""
        prompt_rows = rows["prompt_row"].to_numpy()
        judges = np.where(pc.is_null(rows["error"]).to_numpy(), self._of_prompt[prompt_rows], -1)
        pieces, places = [_unjudged(int((judges < 0).sum()))], [np.flatnonzero(judges < 0)]
        for number, judge in enumerate(self._judges):
            there = np.flatnonzero(judges == number)
            if not len(there):
                continue
            asked, prompt_at = np.unique(prompt_rows[there], return_inverse=True)
            prompts = self._job.prompts.take(asked)
            keys = verdict_keys(rows["content_digest"].take(there), judged_as(prompts).take(pa.array(prompt_at)))
            pieces.append(judge.verdicts(keys, [answers[row] for row in there], prompts, prompt_at))
            places.append(there)
        return pa.concat_tables(pieces).take(np.argsort(np.concatenate(places)))


def _unjudged(rows: int) -> pa.Table:
    return pa.table([pa.nulls(rows, field.type) for field in _OUTCOME], schema=_OUTCOME)


def _ingredients(judge: Judge, job: Judged) -> dict[str, Any]:
    """What decides a verdict: the verifier and its options, and what is taken for the answer."""
    options = judge.model_dump(mode="json", exclude={"pass_score", "timeout_seconds", "processes", "teacher"})
    return {**options, **verifier_identity(judge), "answer": split_identity(job.config.teacher)}
