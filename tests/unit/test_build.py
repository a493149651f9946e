from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill_data.build import (
    BuildPlan,
    assemble_version,
    digest_of,
    existing_version,
    generate_missing,
    plan_build,
    work_of,
)
from distill_data.build_report import BuildReport, report_build, report_pause
from distill_data.config import Config
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.gc import free_parts, plan_gc
from distill_data.corpus.read import open_corpus
from distill_data.corpus.versions import list_versions
from distill_data.errors import InputError, ModelError, TeacherError, TraceStoreError
from distill_data.estimate import UNSEEN_BYTES_PER_TOKEN, estimate_build
from distill_data.lease import teacher_lease, traces_in_use
from distill_data.screening import prompts_of
from distill_data.teachers.generation import NO_BUDGET
from distill_data.teachers.messages import TeacherJob
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts

# The last number is the answer; the replay teacher is right about one time in four.
JUDGED: dict[str, Any] = {"judge": {"verifier": "exact"}, "keep": {"passed_only": True}}


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    return make_config(tmp_path / "root", tiny_model, write_prompts(tmp_path / "p.jsonl", 20), **JUDGED)


def changed(config: Config, **sections: Any) -> Config:
    tree = config.model_dump()
    for name, fields in sections.items():
        tree[name] = {**tree[name], **fields} if isinstance(fields, dict) else fields
    return Config.model_validate(tree)


def with_samples(config: Config, samples: int) -> Config:
    return changed(config, teacher={"sampling": {**config.teacher.sampling.model_dump(), "samples": samples}})


def run_here(build: BuildPlan) -> None:
    """Generate what is missing, for somebody who holds the lease."""
    pool = InlinePool(TeacherJob(build.config.teacher, build.identity.source), Path(build.config.root))
    pool.run(work_of(build), NO_BUDGET, lambda _: None)


def build_corpus(config: Config) -> BuildReport:
    """The steps of the build flow."""
    planned = plan(config)
    if (version := existing_version(planned)) is not None:
        return report_build(*generate_missing(planned, lambda _: None), version, False)
    planned, generated = generate_missing(planned, lambda _: None)
    manifest, created = assemble_version(planned, lambda *_: None)
    return report_build(planned, generated, manifest, created)


def test_a_build_makes_a_whole_version_and_says_what_it_did(config: Config) -> None:
    report = build_corpus(config)
    corpus = open_corpus(report.corpus, config.root)
    assert verify_corpus(corpus) == []
    assert (report.corpus, report.created, report.digest) == ("replayed@v1", True, corpus.manifest.digest)
    assert Path(report.path) == corpus.path
    assert (report.generated_traces, report.reused_traces) == (40, 0)
    assert report.rows == report.train + report.validation == sum(len(corpus.table("traces", s)) for s in corpus.splits)
    assert report.rows + sum(report.dropped.values()) == 40
    assert set(report.dropped) == {"failed_verifier"}
    assert report.pass_rate == pytest.approx(report.rows / 40)
    rows = corpus.table("traces").to_pylist()
    assert all(row["answer"].endswith(row["reference"]) and row["passed"] for row in rows)
    assert all(row["messages"][0]["content"].startswith("你好 ") for row in rows)


def test_unchanged_is_up_to_date(config: Config) -> None:
    first = build_corpus(config)
    again = build_corpus(config)
    assert (again.corpus, again.digest, again.created) == (first.corpus, first.digest, False)
    assert (again.generated_traces, again.generated_tokens, again.reused_traces) == (0, 0, 40)
    assert (again.rows, again.dropped) == (first.rows, first.dropped)
    assert list_versions(config.root, "replayed") == [1]


@pytest.mark.parametrize(
    "sections",
    [
        {"storage": {"shard_size": 3, "flush_rows": 2, "rows_per_file": 5}},
        {"teacher": {"engine": {"max_num_seqs": 1, "max_model_len": 2000, "replicas": 2}}},
    ],
)
def test_how_it_is_executed_changes_no_digest(config: Config, tmp_path: Path, sections: dict[str, Any]) -> None:
    elsewhere = changed(config, root=str(tmp_path / "elsewhere"), **sections)
    assert build_corpus(elsewhere).digest == build_corpus(config).digest
    assert build_corpus(changed(config, **sections)).created is False


def test_adding_prompts_generates_only_theirs(config: Config, tmp_path: Path) -> None:
    build_corpus(config)
    write_prompts(tmp_path / "p.jsonl", 26)
    more = build_corpus(config)
    assert (more.corpus, more.created) == ("replayed@v2", True)
    assert (more.generated_traces, more.reused_traces) == (12, 40)


def test_raising_samples_generates_only_the_new_ones_and_going_back_finds_v1(config: Config) -> None:
    first = build_corpus(config)
    more = build_corpus(with_samples(config, 3))
    assert (more.corpus, more.generated_traces, more.reused_traces) == ("replayed@v2", 20, 40)
    back = build_corpus(config)
    assert (back.corpus, back.created, back.digest) == ("replayed@v1", False, first.digest)
    corpora = [open_corpus(name, config.root) for name in ("replayed@v1", "replayed@v2")]
    ids = [{i for split in c.splits for i in c.table("traces", split)["trace_id"].to_pylist()} for c in corpora]
    assert ids[0] < ids[1]


@pytest.mark.parametrize(
    "sections",
    [
        {"keep": {"passed_only": False}},
        {"judge": {"pass_score": 0.5}},
        {"filters": {"missing_answer": False}},
        {"validation": {"fraction": 0.4}},
        {"teacher": {"reasoning": {"answer_pattern": r"Answer: (\d)"}}},
    ],
)
def test_changing_what_is_kept_makes_a_version_without_generating(config: Config, sections: dict[str, Any]) -> None:
    build_corpus(config)
    other = build_corpus(changed(config, **sections))
    assert (other.corpus, other.created, other.generated_traces) == ("replayed@v2", True, 0)


def test_another_teacher_starts_from_nothing(config: Config) -> None:
    build_corpus(config)
    other = changed(config, teacher={"system_prompt": "Be brief."})
    assert plan(other).store.teacher_id != plan(config).store.teacher_id
    assert build_corpus(other).generated_traces == 40


@pytest.mark.parametrize(("when_busy", "leaves"), [("leave", True), ("wait", False)])
def test_two_builds_of_one_teacher_pay_once(config: Config, when_busy: str, leaves: bool) -> None:
    """The other build holds the lease, and has generated everything when it lets go."""
    mine = plan(changed(config, storage={"when_busy": when_busy}))
    said: list[str] = []
    with ExitStack() as other:
        other.enter_context(teacher_lease(mine.store.folder, wait=False, say=pytest.fail))

        def let_go(line: str) -> None:
            said.append(line)
            run_here(plan(config))
            other.close()

        planned, report = generate_missing(mine, lambda _: None, say=let_go)
    assert report.traces == 0
    if leaves:
        assert report.paused is not None and "another build of this teacher is at work" in report.paused
        assert report_pause(planned, report).missing_traces == 40 and said == []
    else:
        assert (report.paused, len(planned.plan.finished), len(said)) == (None, 40, 1)


def test_nothing_is_assembled_while_traces_are_missing(config: Config) -> None:
    planned = plan(config)
    assert existing_version(planned) is None
    with pytest.raises(TeacherError, match="40 of 40 traces are still missing: run the same command again"):
        assemble_version(planned, lambda *_: None)


def test_no_trace_goes_before_it_is_in_a_version(config: Config) -> None:
    build_corpus(config)
    build, _ = generate_missing(plan(with_samples(config, 6)), lambda _: None)
    unused = plan_gc(config.root, unused=True)
    assert unused.free
    refused = []

    def gc(_: object) -> None:
        with pytest.raises(TraceStoreError, match="makes a version: run gc again"):
            free_parts(unused, config.root, unused=True)
        refused.append(1)

    with traces_in_use(build.store.folder):  # as flows do from the first trace on
        gc(None)
    manifest, _ = assemble_version(build, gc)
    assert len(refused) > 1 and manifest.counts["kept"] + manifest.counts["rejected"] == build.plan.wanted
    assert free_parts(unused, config.root, unused=True).free == []  # the version needs them


def test_the_digest_is_known_before_the_version_is_written(config: Config) -> None:
    generate_missing(plan(config), lambda _: None)
    expected = digest_of(plan(config))
    assert existing_version(plan(config)) is None
    assert build_corpus(config).digest == expected


def test_planning_refuses_a_model_that_is_not_there(config: Config) -> None:
    with pytest.raises(ModelError, match="does not exist: give the path"):
        plan(changed(config, teacher={"model": "/no/such/model"}))


def test_the_estimate_is_a_rule_of_thumb_until_traces_are_there(config: Config) -> None:
    planned = plan(config)
    unseen = estimate_build(planned)
    assert (unseen.traces, unseen.shards, unseen.measured) == (40, 1, False)
    assert (unseen.tokens, unseen.tokens_at_most) == (40 * 32, 40 * 64)
    assert unseen.bytes == round(40 * 32 * UNSEEN_BYTES_PER_TOKEN)
    generate_missing(planned, lambda _: None)
    done = plan(config)
    none = estimate_build(done)
    assert (none.traces, none.shards, none.tokens, none.bytes) == (0, 0, 0, 0)
    more = plan(changed(with_samples(config, 3), storage={"shard_size": 8}))
    seen = estimate_build(more)
    mean = sum(done.plan.finished["completion_tokens"].to_pylist()) / 40
    assert (seen.traces, seen.shards, seen.measured) == (20, 3, True)
    assert seen.tokens == round(20 * mean)
    assert seen.bytes == pytest.approx(done.store.size() / 2, rel=0.01)


def test_traces_that_recite_a_benchmark_leave_the_next_version(config: Config, tmp_path: Path) -> None:
    report = build_corpus(config)
    texts = open_corpus(report.corpus, config.root).head("traces", "train", 1)["messages"].to_pylist()
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"said": f"{texts[0][-1]['content']} {'and so on ' * 13}"}), encoding="utf-8")
    section = {"benchmarks": [{"path": str(exam), "text": ["said"]}], "ngram": 8, "traces": "drop"}
    comparing = Config.model_validate({**config.model_dump(), "decontaminate": section})
    planned = plan_build(comparing, prompts_of(comparing))
    assert len(planned.plan.missing) == 0 and existing_version(planned) is None
    manifest, created = assemble_version(planned, lambda *_: None)
    assert created and manifest.version == 2 and manifest.dropped["recited_benchmark"] >= 1
    assert manifest.prompts.benchmarks["exam"]["traces"] == manifest.dropped["recited_benchmark"]
    assert existing_version(planned) == manifest
    exam.write_text(json.dumps({"said": "something else that nobody ever says"}), encoding="utf-8")
    with pytest.raises(InputError, match=r"benchmark 'exam' has changed since .*: build again"):
        assemble_version(replace(planned, config=changed(comparing, validation={"seed": 9})), lambda *_: None)
    later = plan_build(comparing, prompts_of(comparing))
    assert digest_of(later) != manifest.digest
