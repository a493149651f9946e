from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.lineage import lineage
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import InputError
from distill_data.identity import trace_id
from distill_data.report.history import lineage_summary
from tests.unit.corpus.conftest import TEACHER_ID, make_prompts, make_trace, right_or_wrong

MakeJob = Callable[..., Assembly]


@pytest.fixture
def job(make_job: MakeJob) -> Assembly:
    return make_job(judge={"verifier": "exact"}, keep={"passed_only": True})


@pytest.fixture
def corpus(job: Assembly) -> Corpus:
    assemble(job, lambda _: None)
    return open_corpus("sums@v1", job.config.root)


def test_a_kept_row_leads_back_to_its_part_prompt_teacher_and_verdict(job: Assembly, corpus: Corpus) -> None:
    row = corpus.table("traces", "train").slice(2, 1).to_pylist()[0]
    found = lineage(corpus, row["trace_id"], job.config.root)
    assert (found.file, found.row) == ("traces/train-00000-of-00001.parquet", 2)
    assert found.trace["answer"] == row["answer"]
    assert found.source == {"label": "sums", "sha256": "5a"}
    assert (found.teacher_id, found.teacher["dtype"]) == (TEACHER_ID, "bfloat16")
    assert found.sampling["max_tokens"] == 64
    assert found.judge is not None and found.judge["verifier"] == "exact"
    assert found.part is not None and found.part_row is not None
    stored = job.store.index().filter([*(name == found.part for name in job.store.index()["part"].to_pylist())])
    assert row["prompt_id"] in stored["prompt_id"].to_pylist()
    told = lineage_summary(found)
    assert "passed, score 1 (verifier exact)" in told and found.part in told and "What is" in told


def test_the_row_is_found_in_its_row_group(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_data.corpus.cuts.GROUP_ROWS", 3)
    monkeypatch.setattr("distill_data.corpus.lineage._BATCH_ROWS", 2)
    job = make_job(root=tmp_path / "groups")
    assemble(job, lambda _: None)
    corpus = open_corpus("sums@v1", job.config.root)
    for at, row in enumerate(corpus.table("traces", "train").to_pylist()):
        found = lineage(corpus, row["trace_id"], job.config.root)
        assert (found.row, found.trace) == (at, row)


def test_a_rejected_row_says_why(job: Assembly, corpus: Corpus) -> None:
    wrong = next(row for row in corpus.table("rejected").to_pylist() if row["drop_reason"] == "failed_verifier")
    found = lineage(corpus, wrong["trace_id"], job.config.root)
    assert found.dropped == "failed_verifier" and found.file.startswith("rejected/")
    assert "dropped as failed_verifier" in lineage_summary(found)


def test_the_end_of_an_id_will_do_where_it_is_unique(job: Assembly, corpus: Corpus) -> None:
    name = corpus.table("traces", "train")["trace_id"][0].as_py()
    assert lineage(corpus, name[12:], job.config.root).trace["trace_id"] == name
    with pytest.raises(InputError, match=r"is 40 traces of sums@v1: give more of one of .*, …"):
        lineage(corpus, TEACHER_ID[:8], job.config.root)
    with pytest.raises(InputError, match="sums@v1 has no trace 'nothing'"):
        lineage(corpus, "nothing", job.config.root)


def test_without_the_store_the_rest_is_still_told(job: Assembly, corpus: Corpus) -> None:
    shutil.rmtree(job.store.folder)
    found = lineage(corpus, corpus.table("traces", "train")["trace_id"][0].as_py(), job.config.root)
    assert found.part is None and "does not have it" in found.store
    assert "does not have it" in lineage_summary(found)


def test_prompts_of_their_own_sampling_are_told_theirs(make_job: MakeJob, tmp_path: Path) -> None:
    prompts = make_prompts(3)
    source: dict[str, Any] = {"name": "sums", "sampling": {"temperature": 0.25}}
    job = make_job(prompts, right_or_wrong(prompts, 1), root=tmp_path / "own", source=source)
    assemble(job, lambda _: None)
    corpus = open_corpus("sums@v1", job.config.root)
    found = lineage(corpus, corpus.table("traces", "train")["trace_id"][0].as_py(), job.config.root)
    assert found.sampling["temperature"] == 0.25


def test_a_trace_that_was_made_again_since_is_not_taken_for_the_rows(make_job: MakeJob, tmp_path: Path) -> None:
    prompts = make_prompts(3)
    cut = [make_trace(prompt, 0, "<think>\na\n</think>\n\nb", finish_reason="length") for prompt in prompts]
    job = make_job(prompts, cut, root=tmp_path / "again", filters={"truncated": False})
    assemble(job, lambda _: None)
    corpus = open_corpus("sums@v1", job.config.root)
    job.store.commit([make_trace(prompts[0], 0, "<think>\na\n</think>\n\nwhole")])
    name = trace_id(TEACHER_ID, prompts[0].prompt_id, 0)
    found = lineage(corpus, name, job.config.root)
    assert found.part is None and "generated again since" in found.store
