"""Classifiers, decoder and encoder, trained on a corpus of distributions over labels."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from distill_data.build import assemble_version, generate_missing, plan_build
from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.errors import ConfigError, StudentError
from distill_data.evaluation.classifier import classifier_findings
from distill_data.models import load_tokenizer, resolve_model
from distill_data.report.student import student_summary
from distill_data.screening import prompts_of
from distill_data.student.check import check_student
from distill_data.student.classifier_training import ClassifierJob, label_loss, train_classifier
from distill_data.student.job import StudentPlan, evaluate, plan_student, report_student, train
from distill_data.student.label_metrics import accuracy, calibration_error, log_loss, mean_kl
from distill_data.student.label_texts import NONE, LabelledTexts, labelled_texts
from distill_data.student.result import ClassifierResult
from distill_data.student_config import Loss, Student
from tests.pool.replay_job import InlinePool
from tests.unit.student.other_tokenizers import make_metaspace_tokenizer

LABELS = ["good", "bad", "neither"]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
DECODER, ENCODER = ({"model_type": kind, **SIZES} for kind in ("llama", "bert"))
TRAIN = {"steps": 60, "batch_size": 8, "learning_rate": 1e-2, "loss": {"cross_entropy": 0.0}}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Config:
    """labelled@v1: 40 texts, what the replay teacher says of them, and for every other text a right label."""
    root = tmp_path_factory.mktemp("labelled")
    rows: list[dict[str, str | None]] = [
        {"text": f"{number} " * (1 + number % 5), "right": LABELS[number % 3]} for number in range(40)
    ]
    for row in rows[1::2]:
        row["right"] = None
    (root / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"source": "dataset", "path": str(root / "texts.jsonl"), "prompt": "text", "reference": "right"}
    teacher = {"model": str(tiny_model), "backend": "replay", "mode": "classify", "labels": LABELS}
    tree = {"name": "labelled", "root": str(root), "prompts": [source], "teacher": teacher}
    settings = Config.model_validate({**tree, "validation": {"fraction": 0.3}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.session.TeacherPool", InlinePool)
        planned, _ = generate_missing(plan_build(settings, prompts_of(settings)), lambda _: None)
        assemble_version(planned, lambda _: None)
    return settings


def planned(config: Config, model: Any = DECODER, **changes: Any) -> StudentPlan:
    new = {"from_config": model} if isinstance(model, dict) else model
    student = {"task": "classification", "model": new, "train": TRAIN, **changes}
    own = Config.model_validate(config.model_dump() | {"student": student})
    return plan_student(own, open_corpus("labelled", config.root))


@pytest.mark.parametrize("model", [DECODER, ENCODER], ids=["decoder", "encoder"])
def test_a_classifier_learns_the_teachers_distributions(config: Config, model: dict[str, Any]) -> None:
    job = planned(config, model)
    train(job, lambda _: None)
    evaluate(job)
    report = report_student(job, created=True)
    before, after = report.before, report.after
    assert isinstance(before, ClassifierResult) and isinstance(after, ClassifierResult)
    curve = json.loads((job.folder / "training.json").read_text())["loss_curve"]
    assert np.mean([point["kl"] for point in curve[-5:]]) < 0.7 * curve[0]["kl"]
    data = labelled_texts(job.corpus, "validation")
    assert before.traces == after.traces == len(data.texts) and 0 < after.judged < after.traces
    loaded: Any = AutoModelForSequenceClassification.from_pretrained(job.folder)
    assert loaded.config.id2label == dict(enumerate(LABELS))
    tokenizer = AutoTokenizer.from_pretrained(job.folder)
    found = []
    for text in data.texts:  # one by one: padding changes nothing
        with torch.inference_mode():
            found.append(loaded(torch.tensor([tokenizer(text)["input_ids"]])).logits[0].softmax(0).tolist())
    assert after.kl == pytest.approx(mean_kl(data.probabilities, np.array(found)), abs=1e-5)
    judged = data.references >= 0
    assert after.accuracy == accuracy(np.array(found)[judged], data.references[judged])
    ours = np.array(found)[judged].argmax(1) == data.references[judged]
    teachers = data.probabilities[judged].argmax(1) == data.references[judged]
    assert after.both_right == sum(ours & teachers)
    assert after.only_student_right == sum(ours & ~teachers) and after.only_teacher_right == sum(teachers & ~ours)
    assert after.teacher_log_loss == pytest.approx(log_loss(data.probabilities[judged], data.references[judged]))
    said = pipeline("text-classification", model=loaded, tokenizer=tokenizer, top_k=None)(data.texts[:1])
    assert {one["label"] for one in said[0]} == set(LABELS)  # type: ignore[index]
    assert "text-classification" in (job.folder / "README.md").read_text()
    summary = student_summary(report)
    assert "nats to the teacher's distribution over labels" in summary and "ECE" in summary
    assert planned(config, model).is_evaluated
    compared = classifier_findings(job, report)
    assert compared.accuracy is not None and compared.accuracy.mean == pytest.approx(after.accuracy)
    assert compared.teacher_accuracy is not None and compared.difference is not None
    assert compared.teacher_accuracy.mean == pytest.approx(after.teacher_accuracy)
    assert compared.difference.difference.mean == pytest.approx(sum(ours) / len(ours) - sum(teachers) / len(teachers))


def test_hard_labels_are_the_teachers_or_the_sources(config: Config) -> None:
    ends = {}
    for name, changes in {
        "soft": {},
        "hard": {"loss": {"objective": "text"}},
        "true": {"loss": {"objective": "text"}, "learns": "reference"},
        "mixed": {"loss": {"cross_entropy": 0.5}, "learns": "reference"},
        "tempered": {"loss": {"objective": "renormalised_kl", "temperature": 2.0, "cross_entropy": 0.0}},
    }.items():
        job = planned(config, train={**TRAIN, "steps": 2, **changes})
        train(job, lambda _: None)
        ends[name] = job.folder, json.loads((job.folder / "training.json").read_text())["loss_curve"][0]
    assert len({folder for folder, _ in ends.values()}) == 5
    for name in ("hard", "true"):
        assert ends[name][1]["loss"] == pytest.approx(ends[name][1]["cross_entropy"])
    mixed = ends["mixed"][1]
    assert mixed["loss"] == pytest.approx(mixed["kl"] + 0.5 * mixed["cross_entropy"])
    assert mixed["kl"] == pytest.approx(ends["soft"][1]["kl"])
    counts = {name: json.loads((folder / "training.json").read_text()) for name, (folder, _) in ends.items()}
    judged = labelled_texts(job.corpus, "train").references >= 0
    found = {name: (counts[name]["traces"], counts[name]["without_reference"]) for name in ("hard", "true", "mixed")}
    assert found["true"] == (judged.sum(), (~judged).sum()) and 0 < judged.sum() < len(judged)
    assert found["hard"] == found["mixed"] == (len(judged), 0)
    card = (ends["true"][0] / "README.md").read_text()
    assert f"| {judged.sum()} ({(~judged).sum()} without a reference left out) |" in card
    assert "on the right labels of the sources in the corpus" in card and "KL" not in card and "teacher" not in card
    assert "on the right labels of the sources and what `" in (ends["mixed"][0] / "README.md").read_text()


@pytest.mark.parametrize("loss", [{"objective": "text"}, {"cross_entropy": 0.5}])
def test_references_that_are_not_there_are_not_learnt(config: Config, tmp_path: Path, loss: dict[str, Any]) -> None:
    job = planned(config, train={**TRAIN, "learns": "reference", "loss": loss})
    data = labelled_texts(job.corpus, "train")
    data = replace(data, references=np.full(len(data.texts), NONE))
    tokenizer = load_tokenizer(resolve_model(config.teacher.model))
    with pytest.raises(StudentError, match=r"learns is reference and none of \d+ texts has one: name the column"):
        train_classifier(ClassifierJob(job.student, data, tokenizer, tmp_path), lambda _: None)


def test_a_text_without_a_reference_is_no_part_of_a_mean_over_references(config: Config, tmp_path: Path) -> None:
    """The same texts with and without others that have no right label give the same student."""
    train_section = {**TRAIN, "steps": 3, "batch_size": 50, "learns": "reference", "loss": {"objective": "text"}}
    job = planned(config, train=train_section)
    data = labelled_texts(job.corpus, "train")
    kept = np.flatnonzero(data.references != NONE)
    fewer = LabelledTexts(
        data.labels, [data.texts[row] for row in kept], data.probabilities[kept], data.references[kept]
    )
    tokenizer = load_tokenizer(resolve_model(config.teacher.model))
    curves = [
        train_classifier(ClassifierJob(job.student, texts, tokenizer, tmp_path / name), lambda _: None).loss_curve
        for name, texts in (("all", data), ("fewer", fewer))
    ]
    assert curves[0] == curves[1]
    assert curves[0][0].loss == pytest.approx(math.log(3), rel=0.2)  # of random weights, over 3 labels


def test_the_loss_is_that_of_float64_arithmetic() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    teacher = torch.randn(6, 3, generator=generator).softmax(1)
    teacher[0] = torch.tensor([0.0, 0.25, 0.75])
    targets = torch.tensor([0, 1, 2, -100, 1, 0])
    weights = Loss(objective="renormalised_kl", temperature=2.0, kl=0.7, cross_entropy=0.3)
    found = label_loss(logits, teacher, targets, weights, 6)
    kl = ce = 0.0
    for row in range(6):
        q = logits[row].double()
        flat = [math.sqrt(p) for p in teacher[row].tolist()]  # T = 2
        p = [one / sum(flat) for one in flat]
        log_q = (q / 2).log_softmax(0).tolist()
        kl += 4 * sum(one * (math.log(one) - other) for one, other in zip(p, log_q, strict=True) if one)
        if targets[row] >= 0:
            ce -= q.log_softmax(0)[targets[row]].item()
    assert found.kl.item() == pytest.approx(kl / 6, rel=1e-5)
    assert found.cross_entropy.item() == pytest.approx(ce / 6, rel=1e-5)
    assert found.total.item() == pytest.approx((0.7 * kl + 0.3 * ce) / 6, rel=1e-5)


def test_a_batching_by_length_gives_the_same_texts(config: Config) -> None:
    job = planned(config, train={**TRAIN, "steps": 3, "batching": "length_grouped", "gradient_accumulation": 2})
    train(job, lambda _: None)
    assert report_student(job, created=True).traces == len(labelled_texts(job.corpus, "train").texts)


def test_a_model_on_disk_gets_a_new_head_and_needs_its_own_tokenizer(
    config: Config, tiny_model: Path, tmp_path: Path
) -> None:
    job = planned(config, str(tiny_model), train={**TRAIN, "steps": 2})
    train(job, lambda _: None)
    assert AutoModelForSequenceClassification.from_pretrained(job.folder).config.num_labels == 3
    source = resolve_model(str(tiny_model))
    tokenizer, teacher = load_tokenizer(source), config.teacher
    said = check_student(Student(task="classification", model=str(tiny_model)), tokenizer, source, teacher)
    assert said.startswith("LlamaForSequenceClassification of ") and said.endswith(" for 3 labels")
    own = tmp_path / "own"
    make_metaspace_tokenizer().save_pretrained(own)
    with pytest.raises(StudentError, match=r"has a tokenizer of its own and student\.tokenizer is"):
        check_student(
            Student(task="classification", model=str(tiny_model), tokenizer=str(own)), tokenizer, source, teacher
        )
    other = planned(config, ENCODER, tokenizer=str(own), train={**TRAIN, "steps": 2})
    train(other, lambda _: None)
    assert len(AutoTokenizer.from_pretrained(other.folder)) == len(make_metaspace_tokenizer())


def test_what_does_not_fit_is_told(config: Config) -> None:
    with pytest.raises(ConfigError, match="'vit' is no sequence classification model of transformers"):
        train(planned(config, {"model_type": "vit"}), lambda _: None)
    with pytest.raises(StudentError, match="are longer than max_length 1"):
        train(planned(config, train={**TRAIN, "max_length": 1}), lambda _: None)


def test_measures_against_counting_by_hand() -> None:
    p = np.array([[0.95, 0.05], [0.65, 0.35], [0.6, 0.4], [0.45, 0.55]])
    right = np.array([0, 1, 0, 1])
    assert accuracy(p, right) == 0.75
    assert log_loss(p, right) == pytest.approx(-(math.log(0.95 * 0.35 * 0.6 * 0.55)) / 4)
    # bins: .95 | .65 and .6 | .55
    gaps = [abs(1 - 0.95), abs((0 - 0.65) + (1 - 0.6)), abs(1 - 0.55)]
    assert calibration_error(p, right) == pytest.approx(sum(gaps) / 4)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0
    assert mean_kl(p, p) == 0.0
    assert mean_kl(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])) == pytest.approx(math.log(2))
