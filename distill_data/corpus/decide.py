"""The first pass over the traces: split, judge and filter each one, and keep only the decision.

What stays in memory is some dozen bytes a trace; texts and soft labels are read again to be written.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config, Validation
from distill_data.filters import drop_reasons
from distill_data.identity import unit_hash
from distill_data.prompts import PromptSet
from distill_data.reasoning import Split, Splitter
from distill_data.records import table_to_prompts
from distill_data.trace_store import TraceStore
from distill_data.verify import judge_answers, make_verifier

_LIGHT_COLUMNS = ["completion", "prompt_suffix", "finish_reason", "error", "error_detail"]
_SLICE_ROWS = 4096
_SLICE_TOKENS = 500_000  # 40 MB of soft labels at 12 kept tokens a position; a few copies are alive at once


@dataclass(frozen=True)
class AssemblyProgress:
    """How far a version is: every trace is judged once, then written once; `pass_rate` is of those judged so far."""

    stage: Literal["judge", "write"]
    done: int
    total: int
    pass_rate: float | None = None


Progress = Callable[[AssemblyProgress], None]


@dataclass(frozen=True)
class Assembly:
    """What a version is assembled from.

    `finished` has the columns prompt_row, sample_index, part, row, content_digest, error and
    completion_tokens, in planned order; `tokenizer` has at least sha256 and vocab_size; `split` tells thinking
    from answer.
    """

    config: Config
    prompts: PromptSet
    store: TraceStore
    finished: pa.Table
    teacher_id: str
    teacher: dict[str, Any]
    tokenizer: dict[str, Any]
    digest: str
    split: Splitter


def slices(completion_tokens: np.ndarray) -> Iterator[slice]:
    """Cut rows into runs of bounded memory: 4,096 rows or half a million tokens, whichever is less."""
    ends = np.cumsum(completion_tokens, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        full = int(np.searchsorted(ends, before + _SLICE_TOKENS, side="right"))
        stop = min(max(full, start + 1), start + _SLICE_ROWS, len(ends))
        yield slice(start, stop)
        start = stop


def rows_of(table: pa.Table, part: slice) -> pa.Table:
    """The rows of one slice, without copying."""
    return table.slice(part.start, part.stop - part.start)


def split_part(part: pa.Table, split: Splitter) -> list[Split]:
    """Thinking and answer of every row of a table of PART_SCHEMA."""
    completions, suffixes = part["completion"].to_pylist(), part["prompt_suffix"].to_pylist()
    return [split(completion or "", suffix or "") for completion, suffix in zip(completions, suffixes, strict=True)]


def decide(job: Assembly, on_progress: Progress) -> pa.Table:
    """Judge and filter every trace: where it is, score, passed, drop_reason and drop_detail, row by row.

    Of `finished` its content digest and error are left out. Score and passed are null where nothing was judged;
    drop_reason is null for a kept trace.
    """
    judge = _judge(job)
    pieces = [judge(job.finished.slice(0, 0))]
    passed = judged = 0
    for part in slices(job.finished["completion_tokens"].to_numpy()):
        pieces.append(judge(rows_of(job.finished, part)))
        verdicts = pieces[-1]["passed"].drop_null()
        passed, judged = passed + (pc.sum(verdicts).as_py() or 0), judged + len(verdicts)
        on_progress(AssemblyProgress("judge", part.stop, len(job.finished), passed / judged if judged else None))
    return pa.concat_tables(pieces)


def held_out(group_ids: pa.Array, validation: Validation) -> np.ndarray:
    """Which of the kept groups are held out (bool [groups]): those whose hash under the seed is below the fraction.

    A group is all prompts with the same messages, however they are sampled and whatever completion is scored; its id
    is there once. With two groups or more, neither side stays empty: the one with the smallest hash is held out, the
    one with the largest is not.
    """
    away = np.zeros(len(group_ids), bool)
    if validation.fraction == 0.0 or not len(group_ids):
        return away
    ids = (group.as_py() for group in group_ids)
    hashes = np.fromiter((unit_hash(validation.seed, group) for group in ids), np.float64, len(group_ids))
    table = pa.table({"hash": hashes, "group": group_ids})
    order = pc.sort_indices(table, sort_keys=[("hash", "ascending"), ("group", "ascending")]).to_numpy()
    chosen = int((hashes < validation.fraction).sum())
    away[order[: min(max(chosen, 1), len(order) - 1)]] = True
    return away


def is_held_out(decisions: pa.Table, group_ids: pa.ChunkedArray, validation: Validation) -> pa.Array:
    """Per kept row, whether its prompt's group is held out."""
    groups = group_ids.take(decisions["prompt_row"]).combine_chunks().dictionary_encode()
    return pa.array(held_out(groups.dictionary, validation)[groups.indices.to_numpy()])


def _judge(job: Assembly) -> Callable[[pa.Table], pa.Table]:
    """A function from rows of `finished` to the same rows with their decisions."""
    config = job.config
    verifier = make_verifier(config.judge) if config.judge else None

    def judged(rows: pa.Table) -> pa.Table:
        part = job.store.read(rows.select(["part", "row"]), _LIGHT_COLUMNS)
        splits = split_part(part, job.split)
        verdicts = _verdicts(job, verifier, rows, [split.answer for split in splits])
        outcome = pa.table(
            {
                "finish_reason": part["finish_reason"],
                "error": part["error"],
                "thinking_finished": pa.array([split.finished for split in splits], pa.bool_()),
                "answer": pa.array([split.answer for split in splits], pa.string()),
                "passed": verdicts["passed"],
                "verdict_error": verdicts["verdict_error"],
            }
        )
        reasons = drop_reasons(outcome, config.filters, config.keep)
        by_verifier = pc.equal(reasons, "verifier_error")  # null for a kept trace
        detail = pc.if_else(by_verifier, verdicts["verdict_error"], part["error_detail"])
        decided = rows.drop_columns(["content_digest", "error"]).append_column("score", verdicts["score"])
        decided = decided.append_column("passed", verdicts["passed"])
        return decided.append_column("drop_reason", reasons).append_column("drop_detail", detail)

    return judged


def _verdicts(job: Assembly, verifier: Any, rows: pa.Table, answers: list[str]) -> pa.Table:
    """Columns score, passed and verdict_error; null for what has no verdict."""
    size = len(rows)
    judge = job.config.judge
    there = np.flatnonzero(pc.is_null(rows["error"]).to_numpy()) if judge else np.empty(0, np.int64)
    score, passed = np.zeros(size, np.float32), np.zeros(size, bool)
    errors: list[str | None] = [None] * size
    unjudged = np.ones(size, bool)
    if judge and len(there):
        prompts = table_to_prompts(job.prompts.take(rows["prompt_row"].to_numpy()[there]))
        verdicts = judge_answers(verifier, [answers[row] for row in there], prompts, judge.pass_score)
        score[there], passed[there], unjudged[there] = verdicts.score, verdicts.passed, np.isnan(verdicts.score)
        for row, error in zip(there, verdicts.error, strict=True):
            errors[row] = error
    return pa.table(
        {
            "score": pa.array(score, pa.float32(), mask=unjudged),
            "passed": pa.array(passed, pa.bool_(), mask=unjudged),
            "verdict_error": pa.array(errors, pa.string()),
        }
    )
