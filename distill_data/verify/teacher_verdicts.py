"""Verdicts of a model that judges, read from the trace store that its judging build filled."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from distill_data.errors import TeacherError
from distill_data.judge_config import LlmJudge
from distill_data.models import load_tokenizer
from distill_data.planning import Retries, make_plan
from distill_data.records import Prompt
from distill_data.teacher_identity import identify_teacher
from distill_data.teachers.vllm_reasoning import splitter_of
from distill_data.trace_store import TraceStore
from distill_data.verify.llm_judge import expected_grade, judge_prompt, score_of, written_grade

FAILED = "judge_failed"  # the judge gave no answer
UNREADABLE = "judge_unreadable"  # it gave one without a verdict
_COLUMNS = ["completion", "prompt_suffix", "finish_reason", "error", "error_detail"]
_DISTRIBUTIONS = ["completion_token_ids", "support_counts", "support_ids", "support_logprobs"]
_NO_RETRIES = Retries(max_model_len=None)

Verdict = tuple[float, str | None]
"""A score from 0 to 1, or NaN and why there is none."""


class TeacherVerdicts:
    """What one judge said, by answer. Nothing is generated here."""

    def __init__(self, judge: LlmJudge, root: str) -> None:
        self._judge = judge
        identity = identify_teacher(judge.teacher)
        self._source = identity.source
        self._store = TraceStore(root, identity.teacher_id)
        self._index = self._store.index()
        self._split = splitter_of(judge.teacher, identity.source)

    def score(self, answers: Sequence[tuple[str, Prompt]]) -> list[Verdict]:
        """A verdict for each; an empty answer scores 0 without being judged.

        Raises:
            TeacherError: an answer was not judged yet.
        """
        asked = {row: judge_prompt(self._judge, *answer).prompt_id for row, answer in enumerate(answers)
                 if answer[0].strip()}  # fmt: skip
        said = self._said(list(dict.fromkeys(asked.values())))
        return [said[asked[row]] if row in asked else (0.0, None) for row in range(len(answers))]

    def close(self) -> None:
        """There is no process to end."""

    def _said(self, prompt_ids: list[str]) -> dict[str, Verdict]:
        """The verdict of each of the judge's prompts, over all its samples."""
        samples = self._judge.teacher.sampling.samples
        ids = pa.chunked_array([pa.array(prompt_ids, pa.string())])
        plan = make_plan(ids, np.full(len(prompt_ids), samples), self._index, _NO_RETRIES)
        if len(plan.missing):
            raise TeacherError(f"{len(plan.missing):,} verdicts of the judge are missing: run the same command again")
        heavy = _DISTRIBUTIONS if self._judge.read == "expected" else []
        rows = self._store.read(plan.finished.select(["part", "row"]), [*_COLUMNS, *heavy]).to_pylist()
        verdicts = [self._verdict(row) for row in rows]
        return {name: _over_all(verdicts[at * samples : (at + 1) * samples]) for at, name in enumerate(prompt_ids)}

    def _verdict(self, row: dict[str, Any]) -> Verdict:
        """What one trace of the judge says; a row of the store."""
        if row["error"] is not None:
            return math.nan, f"{FAILED}: {row['error']}: {row['error_detail'] or 'no detail'}"
        if row["finish_reason"] != "stop":
            return (
                math.nan,
                f"{UNREADABLE}: it was cut ({row['finish_reason']}): raise judge.teacher.sampling.max_tokens",
            )
        answer = self._split(row["completion"], row["prompt_suffix"]).answer
        grade: float | None = written_grade(self._judge, answer)
        if grade is not None and self._judge.read == "expected":
            grade = self._expected(row, str(grade))
        if grade is None:
            return math.nan, f"{UNREADABLE}: its last line is {answer.rstrip()[-80:]!r}"
        return score_of(self._judge, grade), None

    def _expected(self, row: dict[str, Any], written: str) -> float | None:
        """The mean grade at the token that the judge wrote its grade with; None where that was no token of its own."""
        ids, counts = row["completion_token_ids"], np.array(row["support_counts"])
        for at in range(len(ids) - 1, -1, -1):
            if self._decode(ids[at]).strip() == written:
                kept = slice(int(counts[:at].sum()), int(counts[: at + 1].sum()))
                tokens = [self._decode(token) for token in row["support_ids"][kept]]
                return expected_grade(self._judge, tokens, np.exp(np.array(row["support_logprobs"][kept], np.float64)))
        return None

    def _decode(self, token: int) -> str:
        return self._tokenizer.decode([token])

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self._source, trust_remote_code=self._judge.teacher.trust_remote_code)


def _over_all(verdicts: list[Verdict]) -> Verdict:
    """The mean of the scores there are; the first reason where there is none."""
    scores = [score for score, why in verdicts if why is None]
    return (fmean(scores), None) if scores else verdicts[0]
