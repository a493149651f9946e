"""A student with a tokenizer of its own learns from the soft labels that a real engine made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.student.job import plan_student, train_and_measure
from distill_data.student.labels import StudentLabels
from distill_data.student.result import EvaluationResult
from tests.engine.conftest import engine_of
from tests.pool.replay_job import plan, write_prompts
from tests.unit.student.other_tokenizers import make_metaspace_tokenizer

pytestmark = [pytest.mark.engine, pytest.mark.long]

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def config(counting: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A version of what a counting teacher says: it is sure, so that there is something to learn in few steps."""
    folder = tmp_path_factory.mktemp("uld")
    make_metaspace_tokenizer().save_pretrained(folder / "own")
    settings = Config.model_validate(
        {
            "name": "uld-test",
            "root": str(folder / "data"),
            "prompts": [
                {"source": "dataset", "path": str(write_prompts(folder / "p.jsonl", 24)), "prompt": "question"}
            ],
            "teacher": {
                "model": str(counting),
                "dtype": "float32",
                "sampling": {"temperature": 0.7, "max_tokens": 24},
                "engine": engine_of(max_num_seqs=16),
            },
            "filters": {"truncated": False, "missing_answer": False},
            "validation": {"fraction": 0.2},
            "student": {
                "model": {"from_config": LLAMA},
                "tokenizer": str(folder / "own"),
                "train": {"steps": 60, "batch_size": 8, "learning_rate": 1e-2, "loss": {"objective": "uld"}},
            },
        }
    )
    planned = plan(settings)
    generate_missing(planned, lambda _: None)
    assemble_version(planned, lambda _: None)
    return settings


def test_labels_stand_where_both_tokenizers_cut_and_are_the_engines(config: Config) -> None:
    assert config.student is not None
    corpus = open_corpus("uld-test@v1", config.root)
    shown = StudentLabels(corpus, config.student, config.teacher).held_out(8).labels.to_pylist()
    own = AutoTokenizer.from_pretrained(config.student.tokenizer)
    theirs = corpus.head("soft_labels", "validation", 8).to_pylist()
    texts = [row["messages"][-1]["content"] for row in corpus.head("traces", "validation", 8).to_pylist()]
    labelled = 0
    for row, teacher, text in zip(shown, theirs, texts, strict=True):
        said = row["completion_token_ids"]
        assert own.decode([token for token in said if token != own.eos_token_id]).strip() == text.strip()
        ends = np.cumsum(teacher["support_counts"])
        engines = {
            tuple(teacher["support_logprobs"][end - count : end])
            for end, count in zip(ends, teacher["support_counts"], strict=True)
        }
        ends = np.cumsum(row["support_counts"])
        for end, count in zip(ends, row["support_counts"], strict=True):
            if count:
                assert tuple(row["support_logprobs"][end - count : end]) in engines
                labelled += 1
    assert labelled >= len(shown) > 0


def test_the_distance_to_the_engines_distributions_falls(config: Config) -> None:
    report = train_and_measure(plan_student(config, open_corpus("uld-test@v1", config.root)), lambda _: None)
    assert report is not None
    assert isinstance(report.before, EvaluationResult) and isinstance(report.after, EvaluationResult)
    before: Any = report.before.uld
    after: Any = report.after.uld
    assert after < 0.8 * before
    assert report.after.cross_entropy < 0.8 * report.before.cross_entropy
    assert report.after.kl is None
