from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.gc import free_parts, plan_gc
from distill_data.corpus.read import open_corpus
from distill_data.errors import CorpusError, TraceStoreError
from distill_data.lease import teacher_lease
from distill_data.planning import Retries, make_plan
from distill_data.report.history import gc_summary
from distill_data.trace_store import TraceStore
from tests.unit.corpus.conftest import TEACHER_ID, make_prompts, make_trace, right_or_wrong

MakeJob = Callable[..., Assembly]


def make(job: Assembly) -> None:
    assemble(job, lambda _: None)


@pytest.fixture
def root(make_job: MakeJob, tmp_path: Path) -> Path:
    """sums@v1 of prompts 0 to 4, sums@v2 of prompts 5 to 9, and traces of prompts 10 and 11 in no version."""
    prompts = make_prompts(12)
    for chosen in (prompts[:5], prompts[5:10]):
        make(make_job(chosen, right_or_wrong(chosen, 2), part_rows=10))
    store = TraceStore(tmp_path, TEACHER_ID)
    store.commit(right_or_wrong(prompts[10:], 1))
    return tmp_path


def test_nothing_goes_that_a_version_has_or_that_none_has_yet(root: Path) -> None:
    plan = plan_gc(root)
    assert (plan.free, plan.kept_parts, plan.kept_for) == ([], 3, ["sums@v1", "sums@v2"])
    assert gc_summary(plan) == "nothing to free: 3 parts stay, for sums@v1, sums@v2"


def test_what_only_another_version_has_goes_and_both_stay_whole(root: Path) -> None:
    store = TraceStore(root, TEACHER_ID)
    before = store.parts()
    plan = plan_gc(root, ["sums@v2"])
    assert [part.traces for part in plan.free] == [10]
    assert store.parts() == before  # planning deletes nothing
    done = free_parts(plan, root, ["sums@v2"])
    assert done.freed and "1 parts" in gc_summary(done) and "freed" in gc_summary(done)
    assert set(before) - set(store.parts()) == {plan.free[0].name}
    assert [verify_corpus(open_corpus(f"sums@v{number}", root)) for number in (1, 2)] == [[], []]
    left = set(store.index()["prompt_id"].to_pylist())
    assert left == {prompt.prompt_id for prompt in make_prompts(12)[5:]}
    assert plan_gc(root, ["sums@v2"]).free == []


def test_unused_traces_go_only_when_asked(root: Path) -> None:
    plan = plan_gc(root, unused=True)
    assert [part.traces for part in plan.free] == [2]
    free_parts(plan, root, unused=True)
    assert plan_gc(root).kept_parts == 2


def test_traces_that_were_made_again_go_where_the_store_prefers_the_others(root: Path) -> None:
    store, first = TraceStore(root, TEACHER_ID), make_prompts(1)[0]
    cut = make_trace(first, 0, "cut", finish_reason="length")
    name = store.commit([cut]).name
    assert [part.name for part in plan_gc(root).free] == [name]


def test_a_part_with_one_needed_trace_stays(root: Path) -> None:
    store, prompts = TraceStore(root, TEACHER_ID), make_prompts(12)
    new = store.commit([make_trace(prompts[0], 5, "a"), make_trace(prompts[1], 5, "b")]).name
    assert new not in [part.name for part in plan_gc(root, ["sums@v2"]).free]
    assert new in [part.name for part in plan_gc(root, ["sums@v2"], unused=True).free]


def test_another_teachers_traces_of_the_same_prompts_and_samples_keep_nothing(root: Path, make_job: MakeJob) -> None:
    prompts, other = make_prompts(12)[:5], TraceStore(root, "e" * 16)
    other.folder.mkdir(parents=True)
    theirs = other.commit(right_or_wrong(prompts, 2)).name
    job = make_job(prompts, right_or_wrong(prompts, 2))
    finished = make_plan(job.prompts.table["prompt_id"], np.full(5, 2), other.index(), Retries(None)).finished
    make(replace(job, store=other, teacher_id=other.teacher_id, finished=finished, digest="f" * 64))
    mine = [part.name for part in plan_gc(root, ["sums@v2"]).free]
    plan = plan_gc(root, ["sums@v2", "sums@v3"])  # v3 is the other teacher's version of v1's prompts
    assert mine and {(part.teacher_id, part.name) for part in plan.free} == {(TEACHER_ID, name) for name in mine}
    assert ("e" * 16, theirs) in {(part.teacher_id, part.name) for part in plan_gc(root, ["sums@v1"]).free}
    free_parts(plan, root, ["sums@v2", "sums@v3"])
    assert other.parts() == [theirs] and len(other.index()) == 10


def test_stores_that_no_version_names_are_left_alone(root: Path) -> None:
    judge = TraceStore(root, "f" * 16)
    judge.folder.mkdir(parents=True)
    judge.commit(right_or_wrong(make_prompts(1), 1))
    plan = plan_gc(root, ["sums@v2"], unused=True)
    assert {part.teacher_id for part in plan.free} == {TEACHER_ID}


def test_a_build_at_work_and_a_version_that_cannot_be_read_stop_it(root: Path) -> None:
    plan = plan_gc(root, ["sums@v2"])
    with (
        teacher_lease(TraceStore(root, TEACHER_ID).folder, wait=True, say=print),
        pytest.raises(TraceStoreError, match=r"is at work.*: run gc again"),
    ):
        free_parts(plan, root, ["sums@v2"])
    (root / "corpora" / "sums" / "v1" / "manifest.json").write_text("{")
    with pytest.raises(CorpusError, match=r"v1.manifest.json is damaged"):
        plan_gc(root, ["sums@v2"])


def test_what_a_build_has_come_to_need_since_stays(root: Path, make_job: MakeJob) -> None:
    plan = plan_gc(root, unused=True)
    assert len(plan.free) == 1
    prompts = make_prompts(12)[10:]
    make(make_job(prompts, right_or_wrong(prompts, 1), part_rows=10))
    assert free_parts(plan, root, unused=True).free == []
    assert plan.free[0].name in TraceStore(root, TEACHER_ID).parts()


def test_a_kill_in_the_middle_leaves_a_whole_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_gc(root, ["sums@v2"], unused=True)
    assert len(plan.free) == 2
    unlink, done = Path.unlink, []

    def killed(self: Path, missing_ok: bool = False) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(self)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        free_parts(plan, root, ["sums@v2"], unused=True)
    monkeypatch.undo()
    assert len(plan_gc(root, ["sums@v2"], unused=True).free) == 1
    assert verify_corpus(open_corpus("sums@v2", root)) == []
