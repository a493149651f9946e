"""Models that judge, on the files of trace stores: what is asked, paid once, read, and part of a version's digest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_data.build import BuildPlan, assemble_version, digest_of, existing_version, generate_missing, replanned
from distill_data.build_report import report_pause
from distill_data.config import Config
from distill_data.corpus.manifest import Manifest
from distill_data.corpus.read import open_corpus
from distill_data.doctor import check_judges
from distill_data.errors import DistillDataError, TeacherError
from distill_data.estimate import estimate_build
from distill_data.judging_build import generate_verdicts
from distill_data.teachers.generation import Budget, GenerationReport
from distill_data.teachers.replay import ReplayTeacher
from tests.pool.replay_job import InlinePool, committed, make_config, plan, write_prompts

Say = Callable[[int], str]


class ScriptedJudge(ReplayTeacher):
    """A replay teacher that, asked to judge, writes what `says` makes of the request's seed."""

    says: Say = staticmethod(lambda seed: f"Because.\nScore: {1 + seed % 5}")

    def _replay(self, request: Any) -> Any:
        tokenizer = self.tokenizer
        if "You judge an answer" not in tokenizer.decode(request.prompt_token_ids):
            return super()._replay(request)
        self.tokenizer = Said(tokenizer, type(self).says(request.seed))
        try:
            return super()._replay(request)
        finally:
            self.tokenizer = tokenizer


class Said:
    """A tokenizer that hears one thing, whatever is said."""

    def __init__(self, tokenizer: Any, text: str) -> None:
        self._ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        self.eos_token_id = tokenizer.eos_token_id

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": self._ids}


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many traces every run of a pool was asked for; the pool runs here, and its judges are scripted."""
    asked: list[int] = []

    class Pool(InlinePool):
        def run(self, work: Any, budget: Any, on_progress: Any) -> GenerationReport:
            asked.append(len(work.missing))
            return super().run(work, budget, on_progress)

    monkeypatch.setattr("tests.pool.replay_job.ReplayTeacher", ScriptedJudge)
    monkeypatch.setattr("distill_data.session.TeacherPool", Pool)
    return asked


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Say], None]:
    return lambda say: monkeypatch.setattr(ScriptedJudge, "says", staticmethod(say))


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    return judged(tmp_path, tiny_model)


def judged(tmp_path: Path, model: Path, teacher: dict[str, Any] | None = None, **keys: Any) -> Config:
    who = {"model": str(model), "backend": "replay", "system_prompt": "You are strict.", **(teacher or {})}
    judge = {"verifier": "llm_judge", "teacher": who, **keys}
    prompts = write_prompts(tmp_path / "p.jsonl", 20)
    return make_config(tmp_path / "root", model, prompts, judge=judge, keep={"passed_only": True})


def changed(config: Config, **sections: Any) -> Config:
    return Config.model_validate(config.model_dump() | sections)


def build(config: Config) -> tuple[Manifest, bool, GenerationReport]:
    """The steps of the build flow."""
    planned = plan(config)
    planned, generated = generate_missing(planned, lambda _: None)
    judging = generate_verdicts(planned, lambda _: None, generated)
    return *assemble_version(planned, lambda *_: None), judging


def rows_of(config: Config) -> list[dict[str, Any]]:
    corpus = open_corpus(config.name, config.root)
    return [row for split in corpus.splits for row in corpus.table("traces", split).to_pylist()]


def judging_of(build: BuildPlan) -> BuildPlan:
    (judging,) = replanned(build).judgings
    return judging


def test_traces_are_judged_after_they_are_made_and_kept_by_their_score(config: Config, runs: list[int]) -> None:
    manifest, created, judging = build(config)
    assert created and runs == [40, judging.traces] and judging.traces <= 40
    kept = rows_of(config)
    assert kept and all(row["passed"] and row["score"] in (0.75, 1.0) for row in kept)
    assert manifest.dropped == {"failed_verifier": 40 - len(kept)}
    assert manifest.statistics["pass_rate"] == pytest.approx(len(kept) / 40)


def test_nothing_is_judged_twice(config: Config, runs: list[int]) -> None:
    first, _, judging = build(config)
    store = judging_of(plan(config)).store
    once = committed(store)
    assert set(once.values()) == {1} and sum(once.values()) == judging.traces
    for other in (config, changed(config, keep={"passed_only": False}), changed(config, filters={"truncated": False})):
        build(other)
    assert runs == [40, judging.traces] and committed(store) == once
    assert existing_version(plan(config)) == first


def test_another_pass_score_reads_the_same_verdicts(config: Config, runs: list[int]) -> None:
    first, *_ = build(config)
    judge = config.model_dump()["judge"] | {"pass_score": 0.25}
    other, created, _ = build(changed(config, judge=judge))
    assert created and len(runs) == 2
    assert (other.statistics["pass_rate"] or 0.0) > (first.statistics["pass_rate"] or 0.0)


@pytest.mark.parametrize("change", [{"rubric": "Only brevity counts."}, {"highest": 6}])
def test_another_rubric_or_scale_judges_anew(config: Config, runs: list[int], change: dict[str, Any]) -> None:
    build(config)
    build(changed(config, judge=config.model_dump()["judge"] | change))
    assert len(runs) == 3 and runs[2] == runs[1]


def test_more_prompts_have_only_their_answers_judged(config: Config, tmp_path: Path, runs: list[int]) -> None:
    build(config)
    write_prompts(tmp_path / "p.jsonl", 26)
    build(config)
    assert runs[2] == 12 and runs[3] <= 12


def test_how_the_judge_is_run_changes_no_digest(config: Config, tmp_path: Path, tiny_model: Path) -> None:
    build(config)
    other = judged(tmp_path, tiny_model, {"engine": {"max_num_seqs": 2, "replicas": 3}})
    assert existing_version(plan(other)) is not None


def test_what_the_judge_said_is_part_of_the_digest(config: Config, says: Any, tmp_path: Path, tiny_model: Path) -> None:
    build(config)
    says(lambda _: "Score: 5")
    other = changed(config, root=str(tmp_path / "elsewhere"))
    build(other)
    assert digest_of(plan(config)) != digest_of(plan(other))


def test_an_answer_without_a_verdict_marks_its_row_and_no_other(config: Config, says: Any) -> None:
    says(lambda seed: "I cannot tell." if seed % 2 else "Score: 5")
    manifest, *_ = build(config)
    assert set(manifest.dropped) == {"verifier_error"}
    details = {row["drop_detail"] for row in open_corpus(config.name, config.root).table("rejected").to_pylist()}
    assert details == {"judge_unreadable: its last line is 'I cannot tell.'"}
    assert 0 < manifest.dropped["verifier_error"] < 40


def test_a_judge_that_is_cut_gives_no_verdict_until_it_has_more_room(
    tmp_path: Path, tiny_model: Path, says: Any
) -> None:
    says(lambda _: "Score: 5\nScore: 5")
    cut = judged(tmp_path, tiny_model, {"sampling": {"max_tokens": 11}})
    with pytest.raises(DistillDataError, match="verifier_error"):
        build(cut)
    judge = cut.model_dump()["judge"]
    judge["teacher"]["retry_truncated"] = {"max_tokens": 99}
    manifest, *_ = build(changed(cut, judge=judge))
    assert manifest.statistics["pass_rate"] == 1.0 and manifest.dropped == {}


def test_several_samples_of_the_judge_are_averaged(tmp_path: Path, tiny_model: Path, runs: list[int]) -> None:
    several = changed(judged(tmp_path, tiny_model, {"sampling": {"samples": 3}}), keep={})
    build(several)
    assert runs[1] % 3 == 0
    scores = {round(row["score"] * 12) / 12 for row in rows_of(several)}
    assert scores - {0.0, 0.25, 0.5, 0.75, 1.0}
    assert all(row["score"] == pytest.approx(round(row["score"] * 12) / 12, abs=1e-6) for row in rows_of(several))


def test_expected_grades_lie_between_grades(tmp_path: Path, tiny_model: Path, says: Any) -> None:
    """The replay teacher's distribution holds the token that it writes and those that come after it."""
    says(lambda _: "Score: 3")
    config = changed(judged(tmp_path, tiny_model, read="expected"), keep={})
    build(config)
    scores = np.array([row["score"] for row in rows_of(config)])
    assert (scores >= 0.5).all() and (scores <= 1.0).all() and len(set(scores.tolist())) > 5


def test_a_budget_covers_judging_and_the_next_build_goes_on(config: Config, runs: list[int]) -> None:
    planned, generated = generate_missing(plan(config), lambda _: None)
    paused = generate_verdicts(planned, lambda _: None, generated, budget=Budget(max_tokens=generated.tokens))
    assert paused.paused == f"--max-tokens {generated.tokens:,} is reached" and runs == [40]
    pause = report_pause(planned, generated, paused)
    assert (pause.missing_traces, pause.missing_verdicts) == (0, judging_of(planned).plan.wanted)
    assert existing_version(plan(config)) is None
    with pytest.raises(TeacherError, match="verdicts of models are still missing: run the same command again"):
        assemble_version(planned, lambda *_: None)
    assert build(config)[1]


def test_a_half_judged_corpus_is_judged_to_its_end(tmp_path: Path, tiny_model: Path) -> None:
    """What a killed judging build had committed is never asked again."""
    config = changed(judged(tmp_path, tiny_model, {"engine": {"max_num_seqs": 2}}), storage={"flush_rows": 4})
    planned, _ = generate_missing(plan(config), lambda _: None)
    whole = generate_verdicts(planned, lambda _: None)
    store = judging_of(planned).store
    for name in store.parts()[::2]:
        (store.folder / name).unlink()
    kept = committed(store)
    assert 0 < len(kept) < whole.traces
    again = generate_verdicts(plan(config), lambda _: None)
    assert again.traces == whole.traces - len(kept)
    assert set(committed(store).values()) == {1} and len(committed(store)) == whole.traces


def test_the_estimate_counts_what_there_is_to_judge(config: Config) -> None:
    before = estimate_build(plan(config))
    assert (before.verdicts, before.judge_tokens, before.judge_tokens_at_most) == (40, 40 * 256, 40 * 512)
    planned, _ = generate_missing(plan(config), lambda _: None)
    there = estimate_build(plan(config))
    assert there.verdicts == judging_of(planned).plan.wanted
    generate_verdicts(planned, lambda _: None)
    assert estimate_build(plan(config)).verdicts == 0


def test_the_judge_is_checked_before_anything_is_generated(config: Config, tmp_path: Path) -> None:
    assert check_judges(plan(config)) == "llm_judge can judge"
    judge = config.model_dump()["judge"]
    for teacher, message in (
        ({"model": "/no/such/model"}, "the teacher of judge: .*does not exist"),
        ({"engine": {"max_model_len": 16}}, "the teacher of judge: none of the first 20 prompts fits"),
    ):
        other = changed(config, judge=judge | {"teacher": judge["teacher"] | teacher})
        with pytest.raises(DistillDataError, match=message):
            check_judges(plan(changed(other, root=str(tmp_path / "fresh"))))
