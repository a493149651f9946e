from __future__ import annotations

from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_data.build import BuildPlan, work_of
from distill_data.planning import shard_of
from distill_data.records import table_to_prompts
from distill_data.teachers.base import Completion, Request, RequestRefused
from distill_data.teachers.generation import NO_BUDGET, GenerationReport
from distill_data.teachers.messages import Progress, ShardWanted, Stopped, TeacherJob, WorkerJob
from distill_data.teachers.rendering import render_prompts
from distill_data.teachers.replay import ReplayTeacher
from distill_data.teachers.worker import TeacherWorker
from tests.pool.replay_job import InlinePool, committed, make_config, part_rows, plan, wanted, write_prompts


@pytest.fixture
def build(tmp_path: Path, tiny_model: Path) -> BuildPlan:
    return make_build(tmp_path, tiny_model)


def make_build(root: Path, model: Path, count: int = 9, words: int = 1, **sections: Any) -> BuildPlan:
    return plan(make_config(root, model, write_prompts(root / "p.jsonl", count, words), **sections))


def pool_of(build: BuildPlan) -> InlinePool:
    return InlinePool(TeacherJob(build.config.teacher, build.identity.source), Path(build.config.root))


def run(build: BuildPlan, pool: InlinePool | None = None) -> GenerationReport:
    """Generate what a build lacks; the folder is the lease's to make."""
    build.store.folder.mkdir(parents=True, exist_ok=True)
    return (pool or pool_of(build)).run(work_of(build), NO_BUDGET, lambda _: None)


def rows_of(build: BuildPlan) -> list[dict[str, Any]]:
    return build.store.read(build.store.index()).to_pylist()


def test_every_trace_is_committed_with_what_the_teacher_saw_and_said(build: BuildPlan) -> None:
    pool = pool_of(build)
    report = run(build, pool)
    assert committed(build.store) == wanted(build)
    rows = rows_of(build)
    assert (report.traces, report.tokens) == (18, sum(row["completion_tokens"] for row in rows))
    tokenizer = pool.teacher.tokenizer
    prompts = table_to_prompts(build.prompts.table)
    rendered = dict(
        zip(
            (prompt.prompt_id for prompt in prompts),
            render_prompts(prompts, tokenizer, build.config.teacher),
            strict=True,
        )
    )
    for row in rows:
        assert row["prompt_token_ids"] == rendered[row["prompt_id"]].token_ids
        assert row["prompt_suffix"] == rendered[row["prompt_id"]].suffix
        assert (row["finish_reason"], row["error"]) == ("stop", None)
        assert row["completion_token_ids"][-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row["completion_token_ids"]) == row["completion"] + tokenizer.eos_token
        assert row["completion"].startswith("Let me see: ")
        assert len(row["support_counts"]) == len(row["sampled_logprobs"]) == row["completion_tokens"]
        starts = np.cumsum([0, *row["support_counts"][:-1]])
        assert [row["support_ids"][start] for start in starts] == row["completion_token_ids"]
    assert len({row["completion"] for row in rows}) > 9  # every sample has a seed of its own
    assert isinstance(pool.messages[0], ShardWanted)
    assert pool.messages[-1] == Stopped(complete=True)
    assert [message for message in pool.messages if isinstance(message, Progress)][-1] == Progress(18, report.tokens, 0)


@pytest.mark.parametrize(("flush_rows", "shard_size"), [(1, 4), (5, 3), (18, 1), (1000, 7)])
def test_parts_hold_about_flush_rows(tmp_path: Path, tiny_model: Path, flush_rows: int, shard_size: int) -> None:
    storage = {"flush_rows": flush_rows, "shard_size": shard_size}
    build = make_build(tmp_path, tiny_model, storage=storage, teacher={"engine": {"max_num_seqs": 1}})
    run(build)
    rows = sorted(part_rows(build.store), reverse=True)
    assert sum(rows) == 18
    assert len(rows) == -(-18 // flush_rows)
    assert max(rows) <= flush_rows
    assert committed(build.store) == wanted(build)


def test_parts_are_committed_when_flush_seconds_are_over(tmp_path: Path, tiny_model: Path) -> None:
    build = make_build(tmp_path, tiny_model, storage={"flush_seconds": 1e-9}, teacher={"engine": {"max_num_seqs": 2}})
    run(build)
    assert part_rows(build.store) == [2] * 9


def test_a_prompt_that_does_not_fit_is_dropped_by_name_and_the_rest_goes_on(tmp_path: Path, tiny_model: Path) -> None:
    short = make_build(tmp_path, tiny_model)
    pool = pool_of(short)
    lengths = [
        len(prompt.token_ids)
        for prompt in render_prompts(
            table_to_prompts(short.prompts.table), pool.teacher.tokenizer, short.config.teacher
        )
    ]
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    (tmp_path / "p.jsonl").write_text("\n".join([*lines, '{"question": "' + "too long " * 60 + '", "answer": "0"}']))
    limit = max(lengths) + 40
    build = plan(make_config(tmp_path, tiny_model, tmp_path / "p.jsonl", teacher={"engine": {"max_model_len": limit}}))
    run(build)
    failed = [row for row in rows_of(build) if row["error"]]
    assert [(row["error"], row["finish_reason"]) for row in failed] == [("prompt_too_long", "error")] * 2
    detail = f"{failed[0]['prompt_tokens']} prompt tokens do not fit a context of {limit}: raise engine.max_model_len"
    assert failed[0]["error_detail"] == detail
    assert failed[0]["prompt_tokens"] == len(failed[0]["prompt_token_ids"]) > limit
    assert failed[0]["completion_token_ids"] == failed[0]["support_ids"] == []
    assert len(rows_of(build)) - len(failed) == 18
    again = plan(build.config)
    assert len(again.plan.missing) == 0  # it is not asked again and again
    wide = build.config.model_dump() | {}
    wide["teacher"]["engine"]["max_model_len"] = 4096
    roomy = plan(type(build.config).model_validate(wide))
    assert roomy.store.teacher_id == build.store.teacher_id
    assert len(roomy.plan.missing) == 2
    run(roomy)
    assert [row["error"] for row in rows_of(roomy)] == [None] * 20


@pytest.mark.parametrize(("max_tokens", "room", "reason"), [(8, 100, "length"), (64, 8, "context"), (64, 64, "stop")])
def test_the_finish_reason_says_what_cut_a_trace(
    tmp_path: Path, tiny_model: Path, max_tokens: int, room: int, reason: str
) -> None:
    sampling = {"samples": 1, "max_tokens": max_tokens}
    first = make_build(tmp_path, tiny_model, count=1, teacher={"sampling": sampling})
    tokenizer = pool_of(first).teacher.tokenizer
    prompt = render_prompts(table_to_prompts(first.prompts.table), tokenizer, first.config.teacher)[0]
    engine = {"max_model_len": len(prompt.token_ids) + room}
    build = make_build(tmp_path, tiny_model, count=1, teacher={"sampling": sampling, "engine": engine})
    run(build)
    (row,) = rows_of(build)
    assert row["finish_reason"] == reason
    expected = row["completion"] + (tokenizer.eos_token if reason == "stop" else "")
    assert tokenizer.decode(row["completion_token_ids"]) == expected
    if reason != "stop":
        assert row["completion_tokens"] == 8


class Difficult(ReplayTeacher):
    """Refuses the second request, and its third answer is broken."""

    count = 0

    def add(self, request: Request) -> None:
        self.count += 1
        if self.count == 2:
            raise RequestRefused("token_out_of_vocabulary", "id 9 of 5")
        super().add(request)

    def step(self) -> list[Completion]:
        completions = super().step()
        if completions and self.count >= 3 and not getattr(self, "broke", False):
            self.broke = True
            completions[0].top_logprobs[1, 0] = np.nan
        return completions


def test_one_bad_row_does_not_stop_the_others(build: BuildPlan) -> None:
    pool = pool_of(build)
    pool.teacher = Difficult(pool.teacher.tokenizer, build.config.teacher)
    run(build, pool)
    errors = {row["error"]: row for row in rows_of(build) if row["error"]}
    assert set(errors) == {"token_out_of_vocabulary", "nonfinite_logprobs"}
    assert errors["token_out_of_vocabulary"]["error_detail"] == "id 9 of 5"
    assert "not finite" in errors["nonfinite_logprobs"]["error_detail"]
    assert committed(build.store) == wanted(build)


class Watched(ReplayTeacher):
    """Keeps how many requests it held at each step, and may act at one of them."""

    def __init__(self, tokenizer: Any, teacher: Any) -> None:
        super().__init__(tokenizer, teacher)
        self.held: list[int] = []
        self.at_step: dict[int, Any] = {}

    def step(self) -> list[Completion]:
        self.held.append(len(self._queue))
        self.at_step.pop(len(self.held), lambda: None)()
        return super().step()


def test_the_window_stays_full_across_shards(tmp_path: Path, tiny_model: Path) -> None:
    build = make_build(tmp_path, tiny_model, count=30, storage={"shard_size": 5})
    pool = pool_of(build)
    pool.teacher = Watched(pool.teacher.tokenizer, build.config.teacher)
    run(build, pool)
    held = pool.teacher.held
    assert max(held) == 6  # 1.5 x max_num_seqs
    assert all(size >= 4 for size in held[1:-2])
    assert committed(build.store) == wanted(build)


def test_told_to_stop_it_commits_what_is_finished_and_the_next_run_does_the_rest(build: BuildPlan) -> None:
    pool = pool_of(build)
    pool.teacher = Watched(pool.teacher.tokenizer, build.config.teacher)
    pool.teacher.at_step = {2: lambda: setattr(pool.worker, "stopping", True)}
    run(build, pool)
    assert pool.messages[-1] == Stopped(complete=False)
    assert part_rows(build.store) == [8]
    rest = plan(build.config)
    assert len(rest.plan.missing) == 10
    run(rest)
    assert committed(build.store) == wanted(build)


def test_when_whoever_started_it_is_gone_it_commits_and_leaves(build: BuildPlan) -> None:
    pool = pool_of(build)
    ours, theirs = Pipe()
    work = work_of(build)
    build.store.folder.mkdir(parents=True)
    ours.send(shard_of(work.missing, np.arange(len(work.missing))))
    teacher = Watched(pool.teacher.tokenizer, build.config.teacher)
    teacher.at_step = {2: ours.close}
    with pytest.raises((EOFError, BrokenPipeError, ConnectionResetError)):
        job = WorkerJob(work.storage, work.root, work.teacher_id, work.ingredients, work.prompts_path)
        TeacherWorker(teacher, build.config.teacher, job, theirs).run()
    assert sum(committed(build.store).values()) >= 8


def test_a_crash_of_the_engine_keeps_what_was_finished(build: BuildPlan) -> None:
    def crash() -> None:
        raise RuntimeError("engine is dead")

    pool = pool_of(build)
    pool.teacher = Watched(pool.teacher.tokenizer, build.config.teacher)
    pool.teacher.at_step = {3: crash}
    with pytest.raises(RuntimeError, match="engine is dead"):
        run(build, pool)
    assert part_rows(build.store) == [8]


class GivesUp(ReplayTeacher):
    """Its engine ends a request as `abort` the first few times that it is asked."""

    times = 0
    target = ""

    def step(self) -> list[Completion]:
        return [self._given_up(completion) for completion in super().step()]

    def _given_up(self, completion: Completion) -> Completion:
        if self.times == 0 or not completion.request_id.startswith(self.target):
            return completion
        self.times -= 1
        nothing = np.empty((0, 4), np.float32)
        ids = nothing.astype(np.int32)
        return Completion(completion.request_id, ids[:, 0], "abort", ids, nothing, nothing[:, 0])


@pytest.mark.parametrize(("times", "errors"), [(2, []), (3, ["request_failed"])])
def test_a_request_that_the_engine_gives_up_is_tried_again_up_to_a_limit(
    build: BuildPlan, times: int, errors: list[str]
) -> None:
    pool = pool_of(build)
    pool.teacher = GivesUp(pool.teacher.tokenizer, build.config.teacher)
    pool.teacher.times, pool.teacher.target = times, f"{build.prompts.table['prompt_id'][0]}-0-"
    run(build, pool)
    assert pool.teacher.times == 0
    failed = [row for row in rows_of(build) if row["error"]]
    assert [row["error"] for row in failed] == errors
    assert all(row["error_detail"] == "the engine ended it 3 times, at last as 'abort'" for row in failed)
    assert committed(build.store) == wanted(build)
