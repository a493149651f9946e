"""Log-probabilities of labels from real vLLM, against transformers' whole softmax: of one token and of several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_data.build import assemble_version, generate_missing, plan_build
from distill_data.config import Config
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.label_distributions import label_prior, label_probabilities
from distill_data.screening import prompts_of
from tests.engine.conftest import MAX_MODEL_LEN, engine_of

pytestmark = pytest.mark.engine

ONE_TOKEN = {"first": "A", "second": "B", "third": "Z"}
SEVERAL = {"short": "A", "alike": "Big", "too": "Bit", "long": "Answer: 42 xyz", "中文": "很棒"}
CONTENT_FREE = ["N/A", "", "[MASK]"]
TEXTS = [*(f"text number {n}" for n in range(24)), "这部电影很棒。", "N/A", "12 " * 400]


@dataclass(frozen=True)
class Classified:
    """A version that an engine labelled, and what transformers says of the same tokens."""

    config: Config
    corpus: Corpus
    oracle: Any

    def rows(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """(trace, soft labels) of every kept row."""
        for split in self.corpus.splits:
            tables = (self.corpus.table(family, split).to_pylist() for family in ("traces", "soft_labels"))
            yield from zip(*tables, strict=True)

    def expected(self, prompt: list[int]) -> tuple[list[float], list[float]]:
        """Log-probabilities of all labels' tokens, one label after the other, and each label's mean, in float64."""
        tokens, means = [], []
        assert self.corpus.manifest.labels is not None
        for label in self.corpus.manifest.labels.token_ids.values():
            with torch.inference_mode():
                logits = self.oracle(torch.tensor([prompt + label])).logits[0, len(prompt) - 1 : -1]
            found = logits.double().log_softmax(-1)[torch.arange(len(label)), label].tolist()
            tokens += found
            means.append(sum(found) / len(found))
        return tokens, means


def classify(model: Path, root: Path, labels: dict[str, str], **teacher: Any) -> Classified:
    texts = root / "texts.csv"
    texts.write_text("text\n" + "\n".join(f'"{text}"' for text in TEXTS), encoding="utf-8")
    settings = {
        "model": str(model),
        "dtype": "float32",
        "mode": "classify",
        "labels": labels,
        "engine": engine_of(max_num_seqs=8),
        **teacher,
    }
    source = {"source": "dataset", "path": str(texts), "prompt": "text"}
    config = Config.model_validate(
        {"name": "labelled", "root": str(root), "prompts": [source], "teacher": settings, "storage": {"flush_rows": 8}}
    )
    build, _ = generate_missing(plan_build(config, prompts_of(config)), lambda _: None)
    assemble_version(build, lambda _: None)
    oracle = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return Classified(config, open_corpus("labelled", root), oracle)


@pytest.fixture(scope="module")
def one_token(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Classified:
    return classify(tiny_model, tmp_path_factory.mktemp("one"), ONE_TOKEN, system_prompt="Choose a letter.")


@pytest.fixture(scope="module")
def several(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Classified:
    template = {"prompt_format": "text", "template": "Text: {text}\nLabel: ", "calibrate_on": CONTENT_FREE}
    return classify(tiny_model, tmp_path_factory.mktemp("several"), SEVERAL, **template)


def test_labels_of_one_token_are_looked_up_in_the_whole_softmax(one_token: Classified) -> None:
    assert one_token.corpus.labels == list(ONE_TOKEN)
    rows = list(one_token.rows())
    assert len(rows) == len(TEXTS) - 1
    for trace, labels in rows:
        tokens, means = one_token.expected(labels["prompt_token_ids"])
        np.testing.assert_allclose(labels["sampled_logprobs"], tokens, atol=1e-4)
        check(trace, label_probabilities(np.array([means]))[0], ONE_TOKEN)


def test_labels_of_several_tokens_count_by_their_mean_and_are_calibrated(several: Classified) -> None:
    facts = several.corpus.manifest.labels
    assert facts is not None and [len(tokens) > 1 for tokens in facts.token_ids.values()] == [False, *[True] * 4]
    tokenizer = AutoTokenizer.from_pretrained(several.config.teacher.model)
    empty = [tokenizer(f"Text: {text}\nLabel: ")["input_ids"] for text in CONTENT_FREE]
    prior = label_prior(np.array([several.expected(ids)[1] for ids in empty]))
    (said,) = facts.priors
    assert (said.system_prompt, said.inputs) == (None, 3)
    np.testing.assert_allclose(list(said.probabilities.values()), prior, atol=1e-4)
    rows = list(several.rows())
    assert len(rows) == len(TEXTS) - 2  # "N/A" only calibrates
    for trace, labels in rows:
        tokens, means = several.expected(labels["prompt_token_ids"])
        np.testing.assert_allclose(labels["sampled_logprobs"], tokens, atol=1e-4)
        check(trace, label_probabilities(np.array([means]), prior)[0], SEVERAL)


def check(trace: dict[str, Any], expected: np.ndarray, labels: dict[str, str]) -> None:
    found = trace["label_probabilities"]
    assert [one["label"] for one in found] == list(labels)
    np.testing.assert_allclose([one["probability"] for one in found], expected, atol=1e-4)
    assert trace["answer"] == max(found, key=lambda one: one["probability"])["label"]
    assert trace["messages"][-1] == {"role": "assistant", "content": labels[trace["answer"]]}


def test_the_prompt_is_what_the_template_makes_and_the_corpus_has_the_text_alone(several: Classified) -> None:
    tokenizer = AutoTokenizer.from_pretrained(several.config.teacher.model)
    for trace, labels in several.rows():
        text = trace["messages"][0]["content"]
        assert text in TEXTS
        assert tokenizer.decode(labels["prompt_token_ids"]) == f"Text: {text}\nLabel: "


def test_what_is_not_a_row_is_set_aside_by_name(several: Classified) -> None:
    rejected = several.corpus.table("rejected").to_pylist()
    by_text = {row["messages"][0]["content"]: row for row in rejected}
    assert several.corpus.manifest.dropped == {"content_free": 3, "prompt_too_long": 1}
    assert {text for text, row in by_text.items() if row["drop_reason"] == "content_free"} == set(CONTENT_FREE)
    assert sum(one["probability"] for one in by_text[""]["label_probabilities"]) == pytest.approx(1.0)
    too_long = by_text[TEXTS[-1]]
    longest = max(map(len, several.corpus.manifest.labels.token_ids.values()))  # type: ignore[union-attr]
    assert f"and {longest} to score do not fit a context of {MAX_MODEL_LEN}" in too_long["drop_detail"]
    assert not too_long["label_probabilities"]


def test_another_calibration_is_another_version_of_the_same_traces(several: Classified) -> None:
    plain = several.config.model_copy(
        update={"teacher": several.config.teacher.model_copy(update={"calibrate_on": []}), "name": "plain"}
    )
    build = plan_build(plain, prompts_of(plain))
    assert len(build.plan.missing) == 0
    manifest, created = assemble_version(build, lambda _: None)
    assert created and manifest.labels is not None and manifest.labels.priors == []
    assert manifest.counts["kept"] == len(TEXTS) - 1
    other = several.config.model_copy(
        update={"teacher": several.config.teacher.model_copy(update={"calibrate_on": ["N/A", "empty"]})}
    )
    missing = plan_build(other, prompts_of(other)).plan.missing
    assert len(missing) == 1


@pytest.mark.parametrize("which", ["one_token", "several"])
def test_the_version_is_whole_and_loads_as_any_other(which: str, request: pytest.FixtureRequest) -> None:
    import datasets

    made: Classified = request.getfixturevalue(which)
    assert verify_corpus(made.corpus) == []
    files = [str(file) for file in made.corpus.files("traces", "train")]
    row = datasets.load_dataset("parquet", data_files=files, split="train")[0]
    assert [one["label"] for one in row["label_probabilities"]] == made.corpus.labels
    assert "<html" in (made.corpus.path / "report.html").read_text("utf-8")
