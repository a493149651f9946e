"""Teacher, student and a baseline on the same held-out prompts; what all of them answer is the replay teacher's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.errors import ConfigError, StudentError
from distill_data.evaluation.asked import held_out_rows
from distill_data.evaluation.table import evaluation_summary
from distill_data.report.student import classifier_summary
from distill_data.screening import prompts_of
from distill_data.student.result import ClassifierResult, EvaluationResult
from distill_data.trace_store import is_part
from flows.build import build_corpus
from flows.evaluate import evaluate_classifier, evaluate_student
from flows.train import train_student
from tests.tiny_model import make_tiny_model


@pytest.fixture
def evaluated(job: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The job with a baseline, its corpus built and its student trained."""
    baseline = make_tiny_model(tmp_path / "other", layers=1, seed=5)
    evaluate = {"speed_seconds": 0.2, "baselines": [{"name": "other", "model": str(baseline)}]}
    job["student"]["evaluate"] = evaluate
    settings = Config.model_validate(job)
    build_corpus(settings)
    with pytest.raises(StudentError, match="run `distill-data train` first"):
        evaluate_student(settings, "arithmetic@v1")
    train_student(settings, "arithmetic@v1")
    return job


def parts(job: dict[str, Any]) -> dict[Path, int]:
    """Every part of every trace store, with when it was written."""
    found = Path(job["root"]).glob("traces/*/*")
    return {file: file.stat().st_mtime_ns for file in found if is_part(file.name)}


@pytest.mark.long
def test_everyone_answers_the_same_prompts_and_none_twice(evaluated: dict[str, Any]) -> None:
    settings = Config.model_validate(evaluated)
    before = parts(evaluated)
    found = evaluate_student(settings, "arithmetic")
    made = parts(evaluated)
    assert before.items() <= made.items() and len({file.parent for file in made}) == 3
    assert not {file.parent for file in made.keys() - before.keys()} & {file.parent for file in before}

    teacher, student, other = found.models
    assert [model.role for model in found.models] == ["teacher", "student", "baseline"] and not found.notes
    assert set(teacher.pass_at) == {1, 4} and found.samples == 4
    assert 0 < teacher.pass_at[1].mean < teacher.pass_at[4].mean < 1  # it guesses one of four
    assert teacher.pass_at == student.pass_at == other.pass_at  # the stand-in's answers come from the prompt alone
    paired = {(pair.other, pair.figure): pair.difference for pair in found.differences}
    assert paired["teacher", "pass@1"].mean == 0.0 and paired["teacher", "pass@1"].p == 1.0

    after = found.student.after
    assert isinstance(after, EvaluationResult) and student.kl is not None and student.cross_entropy is not None
    assert student.kl.mean == pytest.approx(after.kl) and student.top1_agreement == pytest.approx(after.top1_agreement)
    assert student.cross_entropy.mean == pytest.approx(after.cross_entropy)
    assert student.calibration_error == pytest.approx(after.calibration_error)
    assert teacher.cross_entropy is not None
    assert teacher.cross_entropy.mean == pytest.approx(after.teacher_cross_entropy) and teacher.top1_agreement == 1.0
    assert paired["teacher", "NLL"].mean == pytest.approx(student.cross_entropy.mean - teacher.cross_entropy.mean)
    assert found.held_out_tokens == after.tokens and student.cost.parameters == found.student.parameters
    assert all(model.cost.speed is not None and model.cost.speed.tokens_per_second > 0 for model in found.models)
    assert student.cost.dtype == "float32" and other.cost.dtype == "bfloat16"  # as each is saved

    saved = json.loads(Path(found.path).read_text())
    assert saved["models"][1]["pass_at"]["4"]["mean"] == student.pass_at[4].mean
    assert "pass@4" in Path(found.page).read_text()
    summary = evaluation_summary(found)
    assert "student less other" in summary and "tokens/s" in summary and found.page in summary

    again = evaluate_student(settings, "arithmetic")
    assert parts(evaluated) == made and again.models[1].pass_at == student.pass_at and again.path == found.path


@pytest.mark.usefixtures("inline_workers")
def test_more_samples_cost_only_the_new_ones(evaluated: dict[str, Any]) -> None:
    evaluated["student"]["evaluate"] |= {"speed_seconds": 0.0, "samples": 2, "k": [1, 2], "baselines": []}
    few = evaluate_student(Config.model_validate(evaluated), "arithmetic")
    there = parts(evaluated)
    evaluated["student"]["evaluate"] |= {"samples": 6, "k": [1, 6]}
    many = evaluate_student(Config.model_validate(evaluated), "arithmetic")
    new = parts(evaluated).keys() - there.keys()
    assert len(new) == 2 and few.path != many.path and set(many.models[0].pass_at) == {1, 6}
    assert few.student.path == many.student.path  # how it is evaluated names no student
    assert all(model.cost.speed is None for model in many.models)


@pytest.mark.usefixtures("inline_workers")
def test_prompts_are_held_out_whether_the_teacher_could_answer_or_not(evaluated: dict[str, Any]) -> None:
    settings = Config.model_validate(evaluated)
    corpus, prompts = open_corpus("arithmetic", settings.root), prompts_of(settings).table
    label = settings.prompts[0].label
    rows = held_out_rows(prompts, corpus, [label], 256)
    asked = set(prompts["prompt_id"].take(rows).to_pylist())
    seen = {split: set(corpus.table("traces", split)["prompt_id"].to_pylist()) for split in ("train", "validation")}
    assert seen["validation"] < asked  # some that it never got right
    assert not asked & seen["train"]
    fewer = held_out_rows(prompts, corpus, [label], 3)
    assert len(fewer) == 3 and set(fewer) < set(rows)
    assert not len(held_out_rows(prompts, corpus, ["another source"], 256))


@pytest.mark.usefixtures("inline_workers")
def test_without_generating_the_held_out_traces_are_left(evaluated: dict[str, Any]) -> None:
    before = parts(evaluated)
    evaluated["student"]["evaluate"]["generate"] = False
    found = evaluate_student(Config.model_validate(evaluated), "arithmetic")
    assert parts(evaluated) == before and found.notes == ["nothing is generated: student.evaluate.generate is false"]
    assert found.prompts == 0 and all(not model.pass_at and model.cross_entropy for model in found.models)
    assert "pass@" not in evaluation_summary(found)


@pytest.mark.usefixtures("inline_workers")
def test_tasks_without_the_harness_are_refused_in_one_line(
    evaluated: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated["student"]["evaluate"]["lm_eval"] = ["hellaswag"]
    monkeypatch.setattr("distill_data.evaluation.harness.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'distill-data\[lm-eval\]', or leave lm_eval out"):
        evaluate_student(Config.model_validate(evaluated), "arithmetic")


@pytest.mark.usefixtures("inline_workers")
def test_a_classifier_is_compared_with_its_teacher(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"text": f"{number} " * (1 + number % 5), "right": "ab"[number % 2]} for number in range(30)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tree: dict[str, Any] = {
        "name": "labelled",
        "root": str(tmp_path / "data"),
        "prompts": [
            {"source": "dataset", "path": str(tmp_path / "texts.jsonl"), "prompt": "text", "reference": "right"}
        ],
        "teacher": {"model": str(tiny_model), "backend": "replay", "mode": "classify", "labels": ["a", "b"]},
        "validation": {"fraction": 0.4},
        "student": {
            "task": "classification",
            "model": {"from_config": {"model_type": "bert", **sizes}},
            "train": {"steps": 2},
        },
    }
    settings = Config.model_validate(tree)
    build_corpus(settings)
    train_student(settings, "labelled")
    found = evaluate_classifier(settings, "labelled")
    after = found.student.after
    assert isinstance(after, ClassifierResult) and after.judged == after.traces > 4
    saved = json.loads(Path(found.path).read_text())
    assert saved["accuracy"]["mean"] == pytest.approx(after.accuracy) and saved["accuracy"]["low"] is not None
    assert saved["difference"]["difference"]["test"] == "McNemar, exact"
    assert f"figures     {found.path}" in classifier_summary(found)
