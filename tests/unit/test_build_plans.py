"""What a build finds missing, on the files of a trace store; nothing is generated here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_data.build import BuildPlan, digest_of, plan_build
from distill_data.config import Config
from distill_data.estimate import UNSEEN_BYTES_PER_TOKEN, estimate_build
from distill_data.prompts import load_prompts
from distill_data.records import SoftLabels, Trace
from distill_data.soft_labels import empty_soft_labels
from tests.pool.replay_job import write_prompts

SAMPLING = {"samples": 2, "max_tokens": 64}


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    """Two sources, of 4 and 3 prompts; every prompt is sampled twice."""
    (tmp_path / "root").mkdir()
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    first = {"source": "dataset", "path": str(write_prompts(one, 4)), "prompt": "question"}
    second = {**first, "path": str(write_prompts(other, 3, words=2))}
    teacher = {"model": str(tiny_model), "backend": "replay", "sampling": SAMPLING}
    tree = {"name": "n", "root": str(tmp_path / "root"), "prompts": [first, second], "teacher": teacher}
    return Config.model_validate(tree)


def plan(config: Config, **options: Any) -> BuildPlan:
    return plan_build(config, load_prompts(list(config.prompts), config.teacher.mode), **options)


def changed(config: Config, source: dict[str, Any] | None = None, **teacher: Any) -> Config:
    """The config with another second source and another teacher."""
    tree = config.model_dump()
    tree["prompts"][1] |= source or {}
    return Config.model_validate(tree | {"teacher": tree["teacher"] | teacher})


def trace_of(prompt: str, sample: int, tokens: int = 8, **changes: Any) -> Trace:
    ids = np.full(tokens, sample, np.int32)
    labels = SoftLabels(
        np.full(tokens, -1, np.float32), np.ones(tokens, np.uint8), ids, np.full(tokens, -1, np.float16)
    )
    if changes.get("error"):
        ids, labels, changes = ids[:0], empty_soft_labels(), {"finish_reason": "error", **changes}
    outcome = {"finish_reason": "stop", "soft_labels": labels, **changes}
    return Trace(prompt, sample, np.arange(5, dtype=np.int32), "", ids, "x", **outcome)


def commit(build: BuildPlan, **changes: Any) -> None:
    """Put a trace into the store for all that is missing."""
    build.store.folder.mkdir(parents=True, exist_ok=True)
    ids = build.prompts.table["prompt_id"].take(build.plan.missing["prompt_row"]).to_pylist()
    samples = build.plan.missing["sample_index"].to_pylist()
    build.store.commit([trace_of(prompt, sample, **changes) for prompt, sample in zip(ids, samples, strict=True)])


def missing(build: BuildPlan) -> list[tuple[str, int]]:
    """Source and sample of what is missing."""
    sources = build.prompts.table["source"].take(build.plan.missing["prompt_row"]).to_pylist()
    return list(zip(sources, build.plan.missing["sample_index"].to_pylist(), strict=True))


@pytest.mark.parametrize("sampling", [{"temperature": 0.2}, {"max_tokens": 65}, {"stop_token_ids": [3]}])
def test_what_one_source_samples_otherwise_is_made_again_and_nothing_else(
    config: Config, sampling: dict[str, Any]
) -> None:
    commit(plan(config))
    other = plan(changed(config, {"sampling": sampling}))
    assert missing(other) == [("other", sample) for _ in range(3) for sample in range(2)]
    assert other.store.teacher_id == plan(config).store.teacher_id
    commit(other)
    assert missing(plan(changed(config, {"sampling": sampling}))) == missing(plan(config)) == []


def test_more_samples_of_one_source_are_all_that_is_new(config: Config) -> None:
    commit(plan(config))
    more = changed(config, {"sampling": {"samples": 4}})
    assert missing(plan(more)) == [("other", sample) for _ in range(3) for sample in (2, 3)]
    commit(plan(more))
    digests = {digest_of(plan(config)), digest_of(plan(more))}
    assert missing(plan(more)) == [] and len(digests) == 2
    fewer = plan(changed(config, {"sampling": {"samples": 1}}))
    assert (missing(fewer), fewer.plan.wanted) == ([], 4 * 2 + 3)


def test_stop_tokens_of_the_teacher_make_another_teacher(config: Config) -> None:
    commit(plan(config))
    assert len(missing(plan(changed(config, sampling={**SAMPLING, "stop_token_ids": [3]})))) == 14


def test_traces_that_hit_max_tokens_are_made_again_once(config: Config) -> None:
    commit(plan(config), finish_reason="length", tokens=64)
    before = digest_of(plan(config))
    retry = changed(config, retry_truncated={"max_tokens": 100})
    again = plan(retry)
    assert again.store.teacher_id == plan(config).store.teacher_id
    assert again.plan.missing["max_tokens"].to_pylist() == [100] * 14
    commit(again, finish_reason="length", tokens=100)
    assert missing(plan(retry)) == missing(plan(config)) == []
    assert digest_of(plan(retry)) == digest_of(plan(config)) != before  # what was paid for is used
    more = plan(changed(config, retry_truncated={"max_tokens": 200}))
    assert more.plan.missing["max_tokens"].to_pylist() == [200] * 14


def test_a_retry_that_failed_is_left_until_failures_are_asked_for(config: Config) -> None:
    commit(plan(config), finish_reason="length", tokens=64)
    retry = changed(config, retry_truncated={"max_tokens": 100})
    before = digest_of(plan(config))
    commit(plan(retry), error="request_failed")
    assert missing(plan(retry)) == []
    assert digest_of(plan(retry)) == before
    asked = plan(retry, retry_failed=True)
    assert asked.plan.missing["max_tokens"].to_pylist() == [100] * 14


@pytest.mark.parametrize("retry", [{}, {"retry_truncated": {"max_tokens": 100}}])
def test_what_the_context_cut_is_made_again_with_more_and_then_done(config: Config, retry: dict[str, Any]) -> None:
    commit(plan(config), finish_reason="context", tokens=20)  # of a context of 25
    assert missing(plan(changed(config, engine={"max_model_len": 25}, **retry))) == []
    wider = changed(config, engine={"max_model_len": 90}, **retry)
    assert plan(wider).plan.missing["max_tokens"].to_pylist() == [100 if retry else None] * 14
    commit(plan(wider), finish_reason="context" if retry else "length", tokens=85 if retry else 64)
    assert missing(plan(wider)) == []
    widest = plan(changed(config, engine={"max_model_len": 999}))  # without the retry they could not grow
    assert missing(widest) == []
    assert set(widest.plan.finished["completion_tokens"].to_pylist()) == {85 if retry else 64}


def test_failures_are_made_again_when_asked(config: Config) -> None:
    commit(plan(config), error="engine_died")
    assert missing(plan(config)) == []
    asked = plan(config, retry_failed=True)
    assert len(missing(asked)) == 14
    commit(asked)
    assert plan(config).plan.finished["error"].null_count == 14


def test_completions_are_scored_each_once_whatever_the_sampling(config: Config) -> None:
    asked = {"source": "dataset", "prompt": "question", "completion": "answer"}
    tree = config.model_dump(exclude={"prompts"})
    tree["prompts"] = [asked | {"path": source.model_dump()["path"]} for source in config.prompts]
    tree["teacher"] |= {"mode": "score", "sampling": {"samples": 1}}
    scored = Config.model_validate(tree)
    build = plan(scored)
    assert missing(build) == [("one", 0)] * 4 + [("other", 0)] * 3
    assert build.store.teacher_id != plan(config).store.teacher_id
    estimate = estimate_build(build)
    assert (estimate.tokens, estimate.tokens_at_most) == (7, 7 * 2)  # a digit and EOS each
    commit(build, finish_reason="context", tokens=600)
    tree["teacher"] |= {"engine": {"max_model_len": 9999}, "sampling": {"max_tokens": 7}}
    assert len(missing(plan(Config.model_validate(tree)))) == 7  # only the context cut them, whatever max_tokens is


def test_the_estimate_follows_sources_and_retries(config: Config) -> None:
    source = {"sampling": {"samples": 3, "max_tokens": 10}}
    estimate = estimate_build(plan(changed(config, source)))
    assert (estimate.traces, estimate.tokens_at_most) == (4 * 2 + 3 * 3, 8 * 64 + 9 * 10)
    assert estimate.tokens == estimate.tokens_at_most / 2
    assert estimate.bytes == round(estimate.tokens * UNSEEN_BYTES_PER_TOKEN)
    commit(plan(config), finish_reason="length", tokens=64)
    retried = estimate_build(plan(changed(config, retry_truncated={"max_tokens": 100})))
    assert (retried.traces, retried.tokens_at_most) == (14, 14 * 100)
