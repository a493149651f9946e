"""Sampled soft labels from the config to a trained student, with the replay teacher's draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.card import DRAWN_LINES
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import CorpusError, StudentError
from distill_data.export import export_corpus
from distill_data.student.job import evaluate, plan_student, report_student, train
from distill_data.student.result import EvaluationResult
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts
from tests.unit.test_student_job import STUDENT

DRAWS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Config:
    """A config whose corpus replayed@v1 is there."""
    folder = tmp_path_factory.mktemp("sampled")
    teacher = {"soft_labels": {"kind": "sampled", "draws": DRAWS}}
    prompts = write_prompts(folder / "p.jsonl", 30)
    settings = make_config(folder / "root", tiny_model, prompts, student=STUDENT, teacher=teacher)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.session.TeacherPool", InlinePool)
        planned = plan(settings)
        generate_missing(planned, lambda _: None)
        assemble_version(planned, lambda *_: None)
    return settings


@pytest.fixture
def corpus(config: Config) -> Corpus:
    return open_corpus("replayed", config.root)


def test_the_version_says_what_its_labels_are(corpus: Corpus) -> None:
    assert corpus.draws == DRAWS
    assert verify_corpus(corpus) == []
    told = json.loads(pq.read_schema(corpus.files("soft_labels", "train")[0]).metadata[b"distill_data"])
    assert (told["kind"], told["draws"], told["rounding"]) == ("sampled", DRAWS, "graded")
    assert "max(exp(support_logprobs), 1 / draws)" in told["estimator"]
    assert not {"min_prob", "max_support", "tail"} & told.keys()


def test_the_lines_of_the_card_estimate_the_distribution(corpus: Corpus) -> None:
    """The replay teacher's first token has half of its mass on average, and halving ones follow."""
    card = (corpus.path / "README.md").read_text(encoding="utf-8")
    assert DRAWN_LINES in card and f"draws = {DRAWS}\n" in card
    rows = corpus.table("soft_labels").to_pylist()
    names: dict[str, Any] = {"np": np, "vocab_size": corpus.manifest.tokenizer["vocab_size"], "draws": DRAWS}
    sums, kept = [], []
    for row in rows:
        for t, count in enumerate(row["support_counts"]):
            exec(DRAWN_LINES, names | {"row": row, "t": t}, names)
            assert np.count_nonzero(names["distribution"]) == count
            sums.append(names["distribution"].sum())
            kept.append(count)
    assert 1 < np.mean(kept) < DRAWS
    assert np.std(sums) > 0.01  # or the next line says nothing
    assert abs(np.mean(sums) - 1) < 5 * np.std(sums) / np.sqrt(len(sums)) + 2**-7  # labels are rounded


def test_axolotl_gets_the_weights_and_distillkit_nothing(corpus: Corpus, tmp_path: Path) -> None:
    export_corpus(corpus, "axolotl", tmp_path / "out")
    exported = pq.read_table(tmp_path / "out" / "train.parquet")["target_logprobs"].to_pylist()
    found = np.array([value for row in exported for position in row for value in position])
    stored = np.concatenate(corpus.table("soft_labels")["support_logprobs"].to_numpy()).astype(np.float32)
    np.testing.assert_array_equal(found, np.maximum(stored, np.float32(-np.log(DRAWS))))
    assert (found > stored).any()
    with pytest.raises(CorpusError, match="has sampled soft labels, which DistillKit's losses would take"):
        export_corpus(corpus, "distillkit", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_student_learns_from_them(config: Config, corpus: Corpus) -> None:
    student = {**STUDENT, "train": {"steps": 40, "batch_size": 8, "learning_rate": 0.01}}
    job = plan_student(Config.model_validate(config.model_dump() | {"student": student}), corpus)
    train(job, lambda _: None)
    evaluate(job)
    report = report_student(job, created=True)
    assert isinstance(report.before, EvaluationResult) and isinstance(report.after, EvaluationResult)
    assert report.after.distance < 0.7 * report.before.distance
    # The entropy is an estimate of the whole one: first ~ U(0.3, 0.9), then halves.
    assert report.after.teacher_entropy == pytest.approx(1.16, abs=0.15)


def test_other_objectives_are_refused(config: Config, corpus: Corpus) -> None:
    student = {**STUDENT, "train": {**STUDENT["train"], "loss": {"objective": "jsd"}}}
    with pytest.raises(ValueError, match=r"kind is sampled and student\.train\.loss\.objective jsd.*set objective"):
        Config.model_validate(config.model_dump() | {"student": student})
    teacher = config.model_dump()["teacher"] | {"soft_labels": {}}
    other = Config.model_validate(config.model_dump() | {"teacher": teacher, "student": student})
    with pytest.raises(StudentError, match=r"replayed@v1 has sampled soft labels, which do not estimate jsd: set"):
        plan_student(other, corpus)
