"""A version of a teacher that classifies, from its config to its files, with the replay teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.build import assemble_version, generate_missing, plan_build
from distill_data.build_report import report_build
from distill_data.config import Config
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.label_check import label_problems
from distill_data.corpus.manifest import Manifest
from distill_data.corpus.read import open_corpus
from distill_data.errors import ConfigError, CorpusError
from distill_data.estimate import estimate_build
from distill_data.label_distributions import label_prior, label_probabilities, label_scores
from distill_data.models import load_tokenizer, resolve_model
from distill_data.prompts.content_free import content_free_prompts
from distill_data.screening import prompts_of
from distill_data.teacher_config import Teacher
from distill_data.teacher_identity import identify_teacher
from distill_data.teachers.generation import NOTHING_GENERATED
from distill_data.teachers.label_tokens import AT_ONCE, LabelLookup, label_token_ids
from tests.pool.replay_job import InlinePool

LABELS = {"good": "Big", "bad": "Answer: no", "中": "很棒"}
ZH = "这部电影怎么样？"  # noqa: RUF001 (a full-width question mark)


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)


def settings(root: Path, model: Path, **changes: Any) -> Config:
    """Two sources of 6 texts each; the second has instructions of its own."""
    sources = []
    for name, more in (("en", {}), ("zh", {"system_prompt": ZH})):
        file = root / f"{name}.jsonl"
        rows = [{"text": f"{name} {number}", "label": list(LABELS)[number % 2]} for number in range(6)]
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        sources.append({"source": "dataset", "path": str(file), "prompt": "text", "reference": "label", **more})
    teacher = {"model": str(model), "backend": "replay", "mode": "classify", "labels": LABELS}
    tree = {"name": "labelled", "root": str(root), "prompts": sources, "judge": {"verifier": "exact"}}
    return Config.model_validate(tree | {"teacher": teacher | changes})


def build(config: Config) -> tuple[Manifest, Any]:
    planned, _ = generate_missing(plan_build(config, prompts_of(config)), lambda _: None)
    manifest, _ = assemble_version(planned, lambda _: None)
    return manifest, planned


def test_rows_have_the_calibrated_distribution_of_their_instructions(tmp_path: Path, tiny_model: Path) -> None:
    config = settings(tmp_path, tiny_model, calibrate_on=["N/A", ""])
    manifest, planned = build(config)
    assert manifest.dropped == {"content_free": 4} and manifest.counts["kept"] == 12
    assert manifest.labels is not None
    lengths = [len(ids) for ids in manifest.labels.token_ids.values()]
    assert list(manifest.labels.token_ids) == list(LABELS) and max(lengths) > 1
    raw = planned.store.read(planned.store.index(), ["prompt_id", "sampled_logprobs"]).to_pylist()
    scores = {row["prompt_id"]: label_scores(np.array([row["sampled_logprobs"]]), lengths) for row in raw}
    priors = {}
    for prompt in content_free_prompts(config):
        priors.setdefault(len(prompt.messages), []).append(scores[prompt.prompt_id])
    corpus = open_corpus("labelled", tmp_path)
    for split in corpus.splits:
        for row in corpus.table("traces", split).to_pylist():
            prior = label_prior(np.concatenate(priors[len(row["messages"]) - 1]))
            (expected,) = label_probabilities(scores[row["prompt_id"]], prior)
            found = [one["probability"] for one in row["label_probabilities"]]
            np.testing.assert_allclose(found, expected, rtol=1e-6)
            assert row["answer"] == list(LABELS)[int(np.argmax(expected))]
            assert row["messages"][-1]["content"] == LABELS[row["answer"]]
            assert row["passed"] == (row["answer"] == row["reference"])
    assert [prior.system_prompt for prior in manifest.labels.priors] == [None, ZH]
    assert report_build(planned, NOTHING_GENERATED, manifest, True).pass_rate is not None
    assert verify_corpus(corpus) == []


def test_names_and_calibration_make_versions_and_words_make_teachers(tmp_path: Path, tiny_model: Path) -> None:
    base = settings(tmp_path, tiny_model)
    first, _ = build(base)
    assert first.labels is not None and first.labels.priors == []
    renamed = settings(tmp_path, tiny_model, labels={"yes": "Big", "no": "Answer: no", "中": "很棒"})
    calibrated = settings(tmp_path, tiny_model, calibrate_on=["N/A"])
    for config, missing in ((renamed, 0), (calibrated, 2)):
        plan = plan_build(config, prompts_of(config))
        assert len(plan.plan.missing) == missing
        assert plan.store.teacher_id == first.teacher_id
        assert build(config)[0].digest != first.digest
    words = settings(tmp_path, tiny_model, labels={**LABELS, "good": "Good"})
    shown = settings(tmp_path, tiny_model, template="Text: {text}")
    assert len({identify_teacher(config.teacher).teacher_id for config in (base, words, shown)}) == 3


def test_a_system_message_that_was_not_calibrated_for_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    config = settings(tmp_path, tiny_model, calibrate_on=["N/A"])
    chat = [{"chat": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hm"}]}]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, chat)))
    own = {"source": "dataset", "path": str(tmp_path / "own.jsonl"), "messages": "chat"}
    config = Config.model_validate(config.model_dump() | {"judge": None, "prompts": [config.prompts[0], own]})
    with pytest.raises(CorpusError, match=r"the system message 'Be kind\.', which was not calibrated for"):
        build(config)


def test_a_distribution_that_is_none_is_found(tmp_path: Path, tiny_model: Path) -> None:
    build(settings(tmp_path, tiny_model))
    corpus = open_corpus("labelled", tmp_path)
    (file,) = corpus.files("traces", "train")
    assert list(label_problems(file, corpus.labels, "traces")) == []
    other = list(label_problems(file, corpus.labels[::-1], "traces"))
    assert other == ["traces: label_probabilities does not have the labels in the manifest's order"]
    rows = pq.read_table(file).to_pylist()
    for row, changed, expected in (
        (
            2,
            [{"label": name, "probability": 0.5} for name in corpus.labels],
            "traces: row 2: label_probabilities is no",
        ),
        (1, rows[1]["label_probabilities"][:2], "traces: row 1: label_probabilities does not have every label"),
    ):
        broken = [*rows[:row], rows[row] | {"label_probabilities": changed}, *rows[row + 1 :]]
        pq.write_table(pa.Table.from_pylist(broken, corpus.schema("traces")), tmp_path / "broken.parquet")
        (problem,) = label_problems(tmp_path / "broken.parquet", corpus.labels, "traces")
        assert problem.startswith(expected)


def test_an_estimate_of_labels_is_at_most_their_bytes(tmp_path: Path, tiny_model: Path) -> None:
    config = settings(tmp_path, tiny_model)
    estimate = estimate_build(plan_build(config, prompts_of(config)))
    assert estimate.tokens_at_most == 12 * sum(len(words.encode()) for words in LABELS.values())


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({"a": "Big", "b": "Bigger"}, "labels.b begins with all tokens of teacher.labels.a"),
     ({"a": "Answer: 42", "b": "Answer"}, "labels.a begins with all tokens of teacher.labels.b")],
)  # fmt: skip
def test_a_label_that_begins_with_another_is_refused(tiny_model: Path, labels: dict[str, str], expected: str) -> None:
    tokenizer = load_tokenizer(resolve_model(str(tiny_model)))
    with pytest.raises(ConfigError, match=expected):
        label_token_ids(Teacher(model="m", mode="classify", labels=labels), tokenizer)


def test_labels_are_asked_about_as_few_times_as_their_beginnings() -> None:
    one_each = LabelLookup([[5], [9], [7]])
    assert one_each.questions == [((), [5, 9, 7])]
    tree = LabelLookup([[1, 2, 3], [1, 2, 4], [1, 5], [6]])
    assert tree.questions == [((), [1, 6]), ((1,), [2, 5]), ((1, 2), [3, 4])]
    answers = [np.array([-0.1, -2.0]), np.array([-0.5, -1.0]), np.array([-3.0, -4.0])]
    flat = [-0.1, -0.5, -3.0, -0.1, -0.5, -4.0, -0.1, -1.0, -2.0]
    np.testing.assert_allclose(tree.flat(answers), flat, rtol=1e-6)
    assert tree.token_ids.tolist() == [1, 2, 3, 1, 2, 4, 1, 5, 6]
    many = LabelLookup([[token] for token in range(AT_ONCE + 3)])
    assert [len(tokens) for _, tokens in many.questions] == [AT_ONCE, 3]
    asked = [-np.arange(AT_ONCE, dtype=float), -np.arange(AT_ONCE, AT_ONCE + 3, dtype=float)]
    np.testing.assert_allclose(many.flat(asked), -np.arange(AT_ONCE + 3))
