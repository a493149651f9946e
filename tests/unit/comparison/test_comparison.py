from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distill_data.build import assemble_version, generate_missing
from distill_data.compare_config import Compare
from distill_data.comparison.arms import trainings
from distill_data.comparison.findings import findings, write_findings
from distill_data.comparison.page import write_comparison_page
from distill_data.config import Config
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import ConfigError, StudentError
from distill_data.models import load_tokenizer, resolve_model
from distill_data.report.comparison import comparison_summary
from distill_data.student.job import train
from distill_data.student_config import Student
from tests.pool.replay_job import InlinePool, make_config, plan

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
TRAIN = {"steps": 12, "batch_size": 4, "learning_rate": 5e-3}
COMPARE: dict[str, Any] = {"seeds": [0, 1], "looks": 4}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Config:
    """A config whose corpus replayed@v1 is there; every prompt has a reference."""
    folder = tmp_path_factory.mktemp("compare")
    lines = [json.dumps({"question": f"What is {n} + 1?", "answer": f"It is {n + 1}."}) for n in range(12)]
    (folder / "p.jsonl").write_text("\n".join(lines))
    settings = make_config(
        folder / "root", tiny_model, folder / "p.jsonl",
        student={"model": {"from_config": LLAMA}, "train": TRAIN}, compare=COMPARE, validation={"fraction": 0.2},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.session.TeacherPool", InlinePool)
        planned = plan(settings)
        generate_missing(planned, lambda _: None)
        assemble_version(planned, lambda *_: None)
    return settings


@pytest.fixture(scope="module")
def corpus(config: Config) -> Corpus:
    return open_corpus("replayed@v1", config.root)


def test_arms_differ_in_what_they_learn_from_and_nothing_else(config: Config, corpus: Corpus) -> None:
    jobs = trainings(config, corpus)
    assert [(job.arm, job.seed) for job in jobs] == [
        (arm, seed) for arm in ("soft_labels", "text", "reference") for seed in (0, 1)
    ]
    assert len({job.plan.folder for job in jobs}) == 6
    soft, text, reference = (jobs[place].plan.student.train for place in (0, 2, 4))
    assert soft.model_copy(update={"loss": text.loss}) == text
    assert (text.loss.objective, text.loss.kl, text.learns) == ("text", 0.0, "trace")
    assert (reference.learns, reference.loss) == ("reference", text.loss)
    assert jobs[1].plan.student.train == soft.model_copy(update={"seed": 1})


def test_every_arm_is_trained_looked_at_and_compared(config: Config, corpus: Corpus) -> None:
    jobs = trainings(config, corpus)
    for job in jobs:
        train(job.plan, lambda _: None)
    found = findings(jobs)
    assert list(found.figures) == ["teacher_cross_entropy", "teacher_kl", "reference_cross_entropy"]
    tokens = found.tokens
    assert tokens["soft_labels"] == tokens["text"]
    assert tokens["reference"] == pytest.approx(tokens["text"], rel=0.1)
    for arms in found.figures.values():
        assert [arm.arm for arm in arms] == ["soft_labels", "text", "reference"]
        for arm in arms:
            assert all(curve.tokens[0] == 0 and curve.tokens[-1] == tokens[arm.arm] for curve in arm.curves)
            assert (arm.saved is None) == (arm.arm == "soft_labels")
    curves = {arm.arm: arm.curves for arm in found.figures["teacher_cross_entropy"]}
    starts = {curve.values[0] for arm in curves.values() for curve in arm[:1]}
    assert len(starts) == 1  # one seed is one student, whatever it learns from
    for name, arm in (("teacher_kl", "soft_labels"), ("reference_cross_entropy", "reference")):
        best = {figures.arm: figures.final.mean for figures in found.figures[name]}
        assert min(best, key=lambda which: best[which]) == arm


def test_what_is_found_is_written_and_told(config: Config, corpus: Corpus) -> None:
    jobs = trainings(config, corpus)
    found = findings(jobs)
    written = json.loads(write_findings(found).read_text())
    assert written["figures"]["teacher_kl"][0]["curves"][0]["values"][0] > 0
    page = write_comparison_page(found).read_text()
    assert page.count("<polyline") == 3 * 6
    assert "http" not in page and "<script" not in page
    told = comparison_summary(found)
    assert "KL to the teacher" in told and found.path in told
    more = config.model_copy(update={"compare": Compare(seeds=[0], looks=4)})
    assert findings(trainings(more, corpus)).path != found.path


def with_student(config: Config, train: dict[str, Any]) -> Config:
    student = {"model": {"from_config": LLAMA}, "train": TRAIN | train}
    return Config.model_validate(config.model_dump() | {"student": student})


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"loss": {"objective": "text"}}, "has objective text and kl 0, so that the arm soft_labels of compare would"),
        ({"loss": {"kl": 0.0}}, "has objective forward_kl and kl 0, so that the arm soft_labels of compare would"),
        ({"loss": {"objective": "text"}, "learns": "reference"}, "learns is reference, so that every arm of compare"),
        ({"early_stopping": {"every": 2}}, "to its end: leave student.train.early_stopping out"),
    ],
)
def test_arms_that_learn_from_the_same_are_refused(
    config: Config, corpus: Corpus, train: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        trainings(with_student(config, train), corpus)


def test_what_cannot_be_compared_is_refused(config: Config, corpus: Corpus) -> None:
    with pytest.raises(ConfigError, match="no student: section"):
        trainings(config.model_copy(update={"student": None}), corpus)
    student = Student.model_validate({"task": "classification", "model": {"from_config": LLAMA}})
    with pytest.raises(ConfigError, match="is classification and compare trains language models: train classifiers by"):
        trainings(config.model_copy(update={"student": student}), corpus)
    with pytest.raises(ValidationError, match="no set of arms with soft_labels"):
        Compare(arms=["text", "reference"])
    with pytest.raises(ValidationError, match="names a seed twice"):
        Compare(seeds=[1, 1])


def test_references_get_as_many_tokens_as_the_others_learn(config: Config, corpus: Corpus) -> None:
    """Of rows without their thinking that are not too long: counted by hand, and as trainings saw them."""
    teacher = config.teacher.model_dump() | {"reasoning": {"close_tag": ":"}}
    source = resolve_model(config.teacher.model)
    tokenizer = load_tokenizer(source, trust_remote_code=False)
    (closing,) = tokenizer(":", add_special_tokens=False)["input_ids"]
    rows = corpus.table("soft_labels", "train").to_pylist()
    texts = corpus.table("traces", "train")["reference"].to_pylist()
    said = [
        len(row["prompt_token_ids"]) + len(ids) - ids.index(closing) - 1
        for row in rows
        for ids in [row["completion_token_ids"]]
    ]
    references = [
        len(row["prompt_token_ids"]) + len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
        for row, text in zip(rows, texts, strict=True)
    ]
    longest = sorted(said)[len(said) // 2]
    assert max(references) <= longest < max(said)
    kept = [length for length in said if length <= longest]
    a_step, a_step_of_references = (
        sum(rows) / math.ceil(len(rows) / TRAIN["batch_size"]) for rows in (kept, references)
    )
    steps = round(TRAIN["steps"] * a_step / a_step_of_references)

    cut = with_student(config, {"thinking": "drop", "max_length": longest})
    changed = {"teacher": teacher, "compare": {"seeds": [0], "looks": 1}}
    jobs = trainings(Config.model_validate(cut.model_dump() | changed), corpus)
    assert [job.plan.student.train.steps for job in jobs] == [TRAIN["steps"], TRAIN["steps"], steps]
    for job in jobs:
        train(job.plan, lambda _: None)
    found = findings(jobs)
    assert found.tokens["soft_labels"] == found.tokens["text"]
    assert found.tokens["reference"] == pytest.approx(found.tokens["text"], rel=0.05)
    starts = {arm.curves[0].values[0] for arm in found.figures["teacher_cross_entropy"]}
    assert len(starts) == 1  # all are measured on the same tokens: none has the thinking


def test_rows_without_references_are_refused_by_number(config: Config, corpus: Corpus, monkeypatch: Any) -> None:
    table = Corpus.table

    def without_one(self: Corpus, family: str, split: str = "train") -> Any:
        rows = table(self, family, split)
        texts = [None, *rows["reference"].to_pylist()[1:]]
        return rows.set_column(rows.schema.get_field_index("reference"), "reference", [texts])

    monkeypatch.setattr(Corpus, "table", without_one)
    with pytest.raises(StudentError, match=r"^1 rows of replayed@v1 have no reference .*out of compare.arms"):
        trainings(config, corpus)
