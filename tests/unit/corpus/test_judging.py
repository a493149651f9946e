from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from distill_data.config import Config
from distill_data.corpus import judging
from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.digest import corpus_digest
from distill_data.corpus.manifest import Manifest
from distill_data.prompts import PromptSet
from distill_data.prompts.prompt_set import DROPPED_SCHEMA
from distill_data.records import Prompt, prompts_to_table

from .conftest import make_prompts, make_trace, right_or_wrong

MakeJob = Callable[..., Assembly]
EXACT = {"judge": {"verifier": "exact"}}
SCORER = {"verifier": "python", "function": "tests.unit.verify.scorers:by_word", "processes": 1}


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many answers were scored, by call of a pool."""
    counts: list[int] = []

    class Counted(judging.VerifierPool):
        def score(self, answers: Any) -> Any:
            counts.append(len(answers))
            return super().score(answers)

    monkeypatch.setattr(judging, "VerifierPool", Counted)
    return counts


def assembled(job: Assembly) -> Manifest:
    return assemble(job, lambda progress: None)


def test_another_filter_never_judges_again(make_job: MakeJob, scored: list[int]) -> None:
    first = assembled(make_job(**EXACT))
    assert scored == [40]
    second = assembled(make_job(**EXACT, keep={"passed_only": True, "per_prompt": 1}, filters={"truncated": False}))
    assert scored == [40] and second.version == 2
    assert second.statistics["pass_rate"] == first.statistics["pass_rate"] == 0.5
    third = assembled(make_job(judge={"verifier": "exact", "pass_score": 0.5, "timeout_seconds": 99.0}))
    assert scored == [40] and third.version == 3


@pytest.mark.parametrize(
    "change",
    [
        {"judge": {"verifier": "numeric"}},
        {"teacher": {"reasoning": {"answer_pattern": "[0-9]+"}}, **EXACT},  # what is taken for the answer
        {"prompts": [Prompt(p.messages, p.source, "x", p.metadata) for p in make_prompts(10)], **EXACT},
    ],
)
def test_another_verifier_answer_or_reference_judges_anew(
    make_job: MakeJob, scored: list[int], change: dict[str, Any]
) -> None:
    assembled(make_job(**EXACT))
    traces = right_or_wrong(make_prompts(10), 4)
    assembled(make_job(traces=traces, keep={}, **change))
    assert scored == [40, 40]


def test_more_traces_judge_only_these(make_job: MakeJob, scored: list[int]) -> None:
    assembled(make_job(**EXACT))
    assembled(make_job(prompts=make_prompts(13), traces=right_or_wrong(make_prompts(13), 4), **EXACT))
    assert scored == [40, 12]


def test_a_timeout_is_tried_again_and_an_error_is_not(make_job: MakeJob, scored: list[int]) -> None:
    prompts = [Prompt([{"role": "user", "content": f"{n}"}], "sums", "right") for n in range(3)]
    traces = [make_trace(prompt, 0, said) for prompt, said in zip(prompts, ["right", "hang", "raise"], strict=True)]
    hasty = {"judge": SCORER | {"timeout_seconds": 1.0}, "keep": {"passed_only": True}}
    manifest = assembled(make_job(prompts, traces, **hasty))
    assert manifest.dropped == {"verifier_error": 2} and manifest.counts["kept"] == 1
    assembled(make_job(prompts, traces, **hasty, filters={"truncated": False}))
    assert scored == [3, 1]


def test_verdicts_are_kept_a_few_seconds_at_a_time_and_at_the_end(
    make_job: MakeJob, scored: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_ROWS_AT_ONCE", 16)
    assembled(make_job(**EXACT))
    assert scored == [16, 16, 8] and len(list(tmp_path.glob("verdicts/*/*/part-*"))) == 1
    monkeypatch.setattr(judging, "_COMMIT_SECONDS", 0.0)
    assembled(make_job(judge={"verifier": "numeric"}))
    assert len(list(tmp_path.glob("verdicts/*/*/part-*"))) == 4
    assembled(make_job(judge={"verifier": "numeric"}, filters={"truncated": False}))
    assert scored == [16, 16, 8] * 2


def test_a_build_that_stops_keeps_its_verdicts(make_job: MakeJob, scored: list[int]) -> None:
    class Stopped(Exception):
        pass

    def stop(progress: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        assemble(make_job(**EXACT), stop)
    assembled(make_job(**EXACT))
    assert scored == [40]


def test_a_source_has_a_judge_of_its_own(make_job: MakeJob, tmp_path: Path, scored: list[int]) -> None:
    job = make_job(judge={"verifier": "exact"}, source={"judge": SCORER})
    sources = [*job.config.model_dump()["prompts"], {"source": "dataset", "path": "b.jsonl", "prompt": "q",
               "reference": "a", "name": "plain"}]  # fmt: skip
    config = Config.model_validate(job.config.model_dump() | {"prompts": sources})
    others = [replace(prompt, source="plain") for prompt in make_prompts(10)[5:]]
    table = prompts_to_table([*make_prompts(5), *others])
    prompts = PromptSet(table, DROPPED_SCHEMA.empty_table(), {"sums": {}, "plain": {}})
    digest = corpus_digest(config, prompts.digest, job.teacher_id, job.finished)
    alike = make_job(judge={"verifier": "exact"}).config
    assert digest != corpus_digest(alike, prompts.digest, job.teacher_id, job.finished)
    manifest = assembled(replace(job, config=config, prompts=prompts, digest=digest))
    assert sorted(scored) == [20, 20]
    assert len(list((tmp_path / "verdicts").glob("*/*"))) == 2
    assert manifest.statistics["pass_rate"] == 0.5


def test_passed_only_does_not_ask_about_a_source_without_a_judge(make_job: MakeJob) -> None:
    job = make_job(source={"judge": {"verifier": "exact"}}, keep={"passed_only": True})
    assert assembled(job).dropped == {"failed_verifier": 20, "truncated": 2}
    sources = [job.config.model_dump()["prompts"][0] | {"name": "sums"}, {"source": "dataset", "path": "b.jsonl",
               "prompt": "q", "name": "chat"}]  # fmt: skip
    config = Config.model_validate(job.config.model_dump() | {"prompts": sources, "name": "both"})
    others = [replace(prompt, source="chat") for prompt in make_prompts(10)[5:]]
    prompts = PromptSet(
        prompts_to_table([*make_prompts(5), *others]), DROPPED_SCHEMA.empty_table(), {"sums": {}, "chat": {}}
    )
    manifest = assembled(replace(job, config=config, prompts=prompts, digest="0" * 64))
    assert manifest.dropped == {"failed_verifier": 10, "truncated": 2}
    assert manifest.counts["kept"] == 28


def test_without_a_judge_nothing_is_scored(make_job: MakeJob, scored: list[int], tmp_path: Path) -> None:
    manifest = assembled(make_job())
    assert scored == [] and not (tmp_path / "verdicts").exists()
    assert manifest.statistics["pass_rate"] is None


def test_measures_are_in_the_manifest_with_their_thresholds(make_job: MakeJob) -> None:
    manifest = assembled(make_job(filters={"max_tokens": 8, "max_repetition": 0.3}))
    by_name = {measure.name: measure for measure in manifest.measures}
    tokens = by_name["tokens"]
    assert (tokens.reason, tokens.above, tokens.below) == ("too_long", 8.0, None)
    assert sum(tokens.kept_counts) == manifest.counts["kept"]
    assert sum(tokens.dropped_counts) == 40 - manifest.counts["kept"]
    assert manifest.dropped["too_long"] > 0 and "repetition" not in manifest.dropped
    assert manifest.model_validate(manifest.model_dump(mode="json")) == manifest


def test_a_digest_without_the_new_keys_is_the_old_one(make_job: MakeJob) -> None:
    config = make_job(**EXACT).config
    assert config.judge is not None
    assert config.judge.model_dump(mode="json") == {"verifier": "exact", "pass_score": 1.0}
    assert config.keep.model_dump(mode="json") == {"passed_only": False}
    assert config.filters.model_dump() == {"truncated": True, "unfinished_thinking": True, "missing_answer": True}
    assert "judge" not in config.model_dump()["prompts"][0] and "metadata" not in config.model_dump()["prompts"][0]
    job = make_job(judge={"verifier": "exact", "processes": 7})
    assert job.digest == make_job(**EXACT).digest
    assert isinstance(job.finished, pa.Table)
