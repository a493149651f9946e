from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import StudentError
from distill_data.student.job import StudentPlan, evaluate, plan_student, report_student, train
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
STUDENT: dict[str, Any] = {"model": {"from_config": LLAMA}, "train": {"steps": 4, "batch_size": 4}}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Config:
    """A config whose corpus replayed@v1 is there, and without held-out rows replayed@v2."""
    folder = tmp_path_factory.mktemp("job")
    settings = make_config(folder / "root", tiny_model, write_prompts(folder / "p.jsonl", 12), student=STUDENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.build.TeacherPool", InlinePool)
        for fraction in (0.2, 0.0):
            validation = settings.validation.model_copy(update={"fraction": fraction})
            planned = plan(settings.model_copy(update={"validation": validation}))
            generate_missing(planned, lambda _: None)
            assemble_version(planned, lambda *_: None)
    return settings


def corpus(config: Config, version: int = 1) -> Corpus:
    return open_corpus(f"replayed@v{version}", config.root)


def planned(config: Config, version: int = 1, **changes: Any) -> StudentPlan:
    student = {**STUDENT, **changes}
    return plan_student(Config.model_validate(config.model_dump() | {"student": student}), corpus(config, version))


def test_what_decides_the_weights_decides_the_name(config: Config) -> None:
    base = planned(config).folder
    assert base == Path(config.root) / "students" / base.name
    assert base.name.startswith("replayed-v1-")
    same = [planned(config, evaluate={"max_traces": 3}).folder]
    others = [
        planned(config, train={**STUDENT["train"], "seed": 1}).folder,
        planned(config, train={**STUDENT["train"], "loss": {"kl": 0.5}}).folder,
        planned(config, model={"from_config": LLAMA | {"hidden_size": 32}}).folder,
        planned(config, 2).folder,
    ]
    assert same == [base]
    assert len({base, *others}) == len(others) + 1


def test_a_config_without_a_student_is_refused(config: Config) -> None:
    with pytest.raises(StudentError, match="the config has no student: section"):
        plan_student(config.model_copy(update={"student": None}), corpus(config))


def test_a_student_is_trained_once_measured_and_reported(config: Config) -> None:
    job = planned(config)
    with pytest.raises(StudentError, match="is not there: run `distill-data train` first"):
        evaluate(job)
    steps: list[int] = []
    train(job, lambda now: steps.append(now.point.step))
    assert job.is_trained and not job.is_evaluated
    assert steps[-1] == 4
    assert [entry.name for entry in job.folder.parent.iterdir()] == [job.folder.name]
    unmeasured = report_student(job, created=True)
    assert (unmeasured.steps, unmeasured.created, unmeasured.before, unmeasured.after) == (4, True, None, None)
    evaluate(job)
    report = report_student(planned(config), created=False)
    assert report.before is not None and report.after is not None
    assert report.before.traces == report.after.traces == len(corpus(config).table("traces", "validation"))
    assert report.before.kl != report.after.kl
    assert not planned(config, evaluate={"max_traces": 1}).is_evaluated
    assert report.traces == len(corpus(config).table("traces"))
    assert report.corpus == "replayed@v1"


def test_a_training_that_fails_leaves_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise StudentError("out of memory: make batches smaller")

    monkeypatch.setattr("distill_data.student.training.train_student", crash)
    job = planned(config, train={**STUDENT["train"], "seed": 9})
    with pytest.raises(StudentError, match="out of memory"):
        train(job, lambda _: None)
    assert not job.is_trained
    assert not list(job.folder.parent.glob(".*"))


def test_nothing_held_out_is_nothing_to_measure(config: Config) -> None:
    job = planned(config, 2)
    assert not job.has_held_out
    train(job, lambda _: None)
    with pytest.raises(StudentError, match=r"replayed@v2 holds nothing out: set validation\.fraction above 0"):
        evaluate(job)


def test_a_teacher_with_another_tokenizer_is_refused(config: Config, tmp_path: Path) -> None:
    from tests.tiny_model import make_tiny_model, make_tokenizer

    other = make_tiny_model(tmp_path / "other")
    make_tokenizer(vocab_size=300).save_pretrained(other)
    teacher = config.teacher.model_copy(update={"model": str(other)})
    job = plan_student(config.model_copy(update={"teacher": teacher}), corpus(config))
    fresh = StudentPlan(job.config, job.student, job.corpus, tmp_path / "students" / "x")
    with pytest.raises(StudentError, match="was made with another tokenizer than that of"):
        train(fresh, lambda _: None)
