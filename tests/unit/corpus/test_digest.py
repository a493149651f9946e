from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_data.corpus.assemble import Assembly
from distill_data.corpus.digest import corpus_digest

from .conftest import make_prompts, make_trace, right_or_wrong

MakeJob = Callable[..., Assembly]
JUDGE = {"judge": {"verifier": "exact"}}


def test_the_digest_does_not_depend_on_where_traces_lie(make_job: MakeJob, tmp_path: Path) -> None:
    digests = {
        make_job(root=tmp_path / str(rows), part_rows=rows, shuffle=rows, **sections).digest
        for rows, sections in [
            (1, {}),
            (7, {"storage": {"rows_per_file": 3, "shard_size": 2}}),
            (40, {"teacher": {"engine": {"max_num_seqs": 3}}}),
        ]
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    "sections",
    [
        JUDGE,
        {**JUDGE, "keep": {"passed_only": True}},
        {"filters": {"truncated": False}},
        {"validation": {"fraction": 0.2}},
        {"validation": {"seed": 1}},
        {"teacher": {"reasoning": {"close_tag": "</thought>"}}},
        {"teacher": {"reasoning_parser": "qwen3"}},
    ],
)
def test_what_changes_rows_changes_the_digest(make_job: MakeJob, sections: dict[str, Any]) -> None:
    assert make_job(**sections).digest != make_job().digest


def test_another_scorer_changes_the_digest(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    scored, plain = {"judge": {"verifier": "reasoning_gym"}}, make_job().digest
    digests = {make_job(**JUDGE).digest, make_job(**scored).digest}
    monkeypatch.setattr("distill_data.verify.judge.version", lambda package: f"{package} 99")
    assert make_job(**JUDGE).digest in digests
    digests.add(make_job(**scored).digest)
    monkeypatch.setattr("distill_data.verify.exact.ExactVerifier.version", 2)
    digests.add(make_job(**JUDGE).digest)
    assert len(digests) == 4
    assert make_job().digest == plain


def test_the_parser_and_its_version_change_the_digest(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {make_job(teacher={"reasoning_parser": name}).digest for name in ("qwen3", "deepseek_r1")}
    monkeypatch.setattr("distill_data.teachers.vllm_reasoning.version", lambda package: "99")
    digests.add(make_job(teacher={"reasoning_parser": "qwen3"}).digest)
    monkeypatch.setattr("distill_data.teachers.vllm_reasoning.version", lambda package: "99+cpu")
    digests.add(make_job(teacher={"reasoning_parser": "qwen3"}).digest)
    assert len(digests) == 3


def test_other_traces_teachers_and_prompts_change_the_digest(make_job: MakeJob, tmp_path: Path) -> None:
    prompts = make_prompts(3)
    traces = right_or_wrong(prompts, 1)
    job = make_job(prompts, traces, root=tmp_path / "a")
    other = make_job(prompts, [*traces[:2], make_trace(prompts[2], 0, "else")], root=tmp_path / "b")
    digests = {
        job.digest,
        other.digest,
        corpus_digest(job.config, job.prompts.digest, "another", job.finished),
        corpus_digest(job.config, "another", job.teacher_id, job.finished),
        corpus_digest(job.config, job.prompts.digest, job.teacher_id, job.finished.slice(1)),
    }
    assert len(digests) == 5
