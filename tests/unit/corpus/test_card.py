from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.card import render_card
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.filters import DROP_REASONS

from .conftest import make_prompts, right_or_wrong

MakeJob = Callable[..., Assembly]


@pytest.fixture
def corpus(make_job: MakeJob, tmp_path: Path) -> Corpus:
    sections = {"judge": {"verifier": "exact"}, "keep": {"passed_only": True}}
    assemble(make_job(**sections), lambda progress: None)
    return open_corpus("sums", tmp_path)


def card(corpus: Corpus) -> str:
    return (corpus.path / "README.md").read_text(encoding="utf-8")


def test_the_header_is_yaml_with_both_configs(corpus: Corpus) -> None:
    header = yaml.safe_load(card(corpus).split("---\n")[1])
    assert header["license"] == "other"
    assert header["size_categories"] == ["n<1K"]
    traces, labels, rejected = header["configs"]
    assert (traces["config_name"], traces["default"], labels["config_name"]) == ("traces", True, "soft_labels")
    assert rejected["data_files"] == [{"split": "rejected", "path": "rejected/rejected-*.parquet"}]
    assert header["dataset_info"][0] == {
        "config_name": "traces",
        "splits": [{"name": split, "num_examples": corpus.manifest.counts[split]} for split in ("train", "validation")],
        "download_size": sum(file.bytes for file in corpus.manifest.files if file.path.startswith("traces/")),
    }
    assert labels["data_files"] == [
        {"split": "train", "path": "soft_labels/train-*.parquet"},
        {"split": "validation", "path": "soft_labels/validation-*.parquet"},
    ]


@pytest.mark.parametrize(
    ("of_source", "of_config", "shown"),
    [
        (None, None, "other"),
        ("mit", None, "mit"),
        ("mit", "cc-by-4.0", "cc-by-4.0"),
        (None, "cc-by-4.0", "cc-by-4.0"),
    ],
)
def test_the_licence_is_the_configs_else_that_of_the_sources(
    make_job: MakeJob, tmp_path: Path, of_source: str | None, of_config: str | None, shown: str
) -> None:
    sections = {"source": {"license": of_source}, "publish": {"to": "hf://org/sums", "license": of_config}}
    assemble(make_job(**sections), lambda progress: None)
    text = card(open_corpus("sums", tmp_path))
    assert yaml.safe_load(text.split("---\n")[1])["license"] == shown
    assert re.search(rf"\| source `sums` \| .* \({of_source or 'no licence named'}\) \|", text)


def test_sources_of_different_licences_make_it_other(corpus: Corpus) -> None:
    manifest = corpus.manifest
    one = manifest.config["prompts"][0]
    both = {"prompts": [one | {"license": "mit"}, one | {"license": "cc-by-4.0", "name": "more"}]}
    sources = manifest.prompts.model_copy(update={"sources": {"sums": {}, "more": {}}})
    text = render_card(manifest.model_copy(update={"config": manifest.config | both, "prompts": sources}))
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "other"
    assert "| source `sums` | unknown (mit) |" in text and "| source `more` | unknown (cc-by-4.0) |" in text


def test_sources_are_named_as_they_were_read(corpus: Corpus) -> None:
    manifest = corpus.manifest
    pins = {
        "gsm": {"path": "openai/gsm8k", "subset": "main", "split": "train", "revision": "cc7b047", "fingerprint": "1"},
        "own": {"path": "/somewhere/own.jsonl", "sha256": "12ab"},
        "gym": {"reasoning_gym": "0.1.25", "task": "chain_sum", "seed": 7, "size": 96, "options": {"max_terms": 2}},
    }
    config = manifest.config | {"prompts": [manifest.config["prompts"][0]] * 3}
    prompts = manifest.prompts.model_copy(update={"sources": pins})
    text = render_card(manifest.model_copy(update={"config": config, "prompts": prompts}))
    assert yaml.safe_load(text.split("---\n")[1])["source_datasets"] == ["openai/gsm8k"]
    assert "| source `gsm` | `openai/gsm8k`, subset main, split train, revision cc7b047 (no licence named) |" in text
    assert "| source `own` | `own.jsonl`, sha256 12ab (no licence named) |" in text
    assert 'reasoning_gym 0.1.25, task chain_sum, seed 7, size 96, options {"max_terms": 2} (no licence named)' in text


def test_a_name_that_yaml_reads_as_a_number_stays_text(make_job: MakeJob, tmp_path: Path) -> None:
    assemble(make_job(name="1.0"), lambda progress: None)
    text = card(open_corpus("1.0", tmp_path))
    assert yaml.safe_load(text.split("---\n")[1])["pretty_name"] == "1.0"


def test_the_funnel_shows_counts_and_explained_drop_reasons(corpus: Corpus) -> None:
    text = card(corpus)
    assert "| traces | 40 |" in text and "| kept | 18 |" in text
    for reason, count in corpus.manifest.dropped.items():
        assert DROP_REASONS[reason]
        assert f"| `{reason}` | {count} | {DROP_REASONS[reason]} |" in text


def test_the_lines_of_numpy_rebuild_a_distribution(corpus: Corpus) -> None:
    code = re.findall(r"```python\n(.*?)```", card(corpus), re.DOTALL)[0]
    for row in corpus.table("soft_labels").slice(0, 3).to_pylist():
        starts = np.concatenate(([0], np.cumsum(row["support_counts"])))
        for t in range(len(row["completion_token_ids"])):
            names: dict[str, Any] = {"row": row, "t": t}
            exec(code, names)
            kept = slice(starts[t], starts[t + 1])
            distribution = names["distribution"]
            assert distribution.shape == (400,)
            assert distribution.sum() == pytest.approx(1.0)
            expected = np.exp(np.array(row["support_logprobs"][kept], np.float64))
            np.testing.assert_allclose(distribution[row["support_ids"][kept]], expected)
            assert distribution.argmax() == row["support_ids"][kept][0]


def test_the_card_holds_no_machine_path(corpus: Corpus, tmp_path: Path) -> None:
    assert str(tmp_path) not in card(corpus)
    assert "/somewhere" not in card(corpus)


def test_the_card_says_what_was_sampled_otherwise(make_job: MakeJob, tmp_path: Path) -> None:
    source = {"sampling": {"temperature": 0.2, "stop_token_ids": [7]}}
    sampling = {"samples": 4, "max_tokens": 64, "stop_token_ids": [5, 6]}
    teacher = {"sampling": sampling, "retry_truncated": {"max_tokens": 99}}
    assemble(make_job(source=source, teacher=teacher), lambda progress: None)
    text = card(open_corpus("sums", tmp_path))
    assert "| otherwise for `sums` | temperature 0.2, stop_token_ids [7] |" in text
    assert "| max_tokens | 64, 99 for traces that hit it |" in text
    assert "| stop token ids | 5, 6 |" in text


def test_the_card_of_scored_completions_speaks_of_no_sampling(make_job: MakeJob, tmp_path: Path) -> None:
    prompts, teacher = make_prompts(4), {"mode": "score", "sampling": {}}
    job = make_job(prompts, right_or_wrong(prompts, 1), source={"completion": "a"}, teacher=teacher)
    assemble(job, lambda progress: None)
    text = card(open_corpus("sums", tmp_path))
    assert "| mode | score: the completions are the prompt sources' own, the teacher scored them |" in text
    assert "max_tokens" not in text and "temperature, top_p" not in text
    assert "what the teacher scored, end-of-sequence token included" in text
