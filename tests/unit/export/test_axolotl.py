"""What axolotl's KD plugin reads (axolotl-ai-cloud/axolotl, integrations/kd at 139786b).

Its collator pads each position's k to the widest of the batch with log-probability -1e9, id 0 and mask 0, then rows on
the right with such positions, labels with -100. Its loss gathers the logits at a position by that position's ids, sums
p (log p - log q) where the mask is set, and shifts `labels`, not the targets.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml

from distill_data.corpus.read import Corpus
from distill_data.export import export_corpus
from tests.unit.corpus.conftest import VOCAB_SIZE

from .conftest import EOS, Distribution, Expected, expected, exported

COLUMNS = ["input_ids", "attention_mask", "labels", "target_token_ids", "target_logprobs", "target_mask"]


def collated(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Rows padded as the plugin's collator pads them."""
    length = max(len(row["labels"]) for row in rows)
    width = max(len(position) for row in rows for position in row["target_logprobs"])
    filler = {"target_logprobs": -1e9, "target_token_ids": 0, "target_mask": 0}
    batch: dict[str, Any] = {"labels": [row["labels"] + [-100] * (length - len(row["labels"])) for row in rows]}
    for name, value in filler.items():
        batch[name] = [
            [position + [value] * (width - len(position)) for position in row[name]]
            + [[value] * width] * (length - len(row[name]))
            for row in rows
        ]
    return {name: np.array(values) for name, values in batch.items()}


def distributions(row: dict[str, Any]) -> list[Distribution]:
    """What the plugin learns at each position."""
    return [
        {token: p for token, p, kept in zip(ids, logprobs, mask, strict=True) if kept}
        for ids, logprobs, mask in zip(row["target_token_ids"], row["target_logprobs"], row["target_mask"], strict=True)
    ]


def test_every_position_holds_the_corpus_own_distribution_of_the_next_token(corpus: Corpus, tmp_path: Path) -> None:
    loaded = exported(corpus, "axolotl", tmp_path / "out")
    assert set(loaded) == set(corpus.splits) == {"train", "validation"}
    for split in corpus.splits:
        rows = expected(corpus, split)
        assert loaded[split].column_names == COLUMNS
        assert len(loaded[split]) == len(rows)
        for row, trace in zip(loaded[split], rows, strict=True):
            tokens = trace.prompt + trace.completion
            assert row["input_ids"] == tokens
            assert row["attention_mask"] == [1] * len(tokens)
            assert row["labels"] == [-100] * len(trace.prompt) + trace.completion
            assert row["labels"][-1] == EOS
            nothing: list[Distribution] = [{}] * (len(trace.prompt) - 1)
            assert distributions(row) == [*nothing, *trace.distributions, {}]


def test_the_mask_follows_the_label_of_the_next_token(corpus: Corpus, tmp_path: Path) -> None:
    for row in exported(corpus, "axolotl", tmp_path / "out")["train"]:
        trained = [label != -100 for label in row["labels"][1:]] + [False]
        assert [bool(mask) for mask in row["target_mask"]] == trained
        assert all(value == 1 for mask in row["target_mask"] for value in mask)


def test_a_padded_batch_gives_the_loss_of_the_corpus_own_distributions(corpus: Corpus, tmp_path: Path) -> None:
    rows = list(exported(corpus, "axolotl", tmp_path / "out")["train"])
    batch, traces = collated(rows), expected(corpus, "train")
    rng = np.random.default_rng(5)
    logits = rng.normal(0.0, 2.0, (*batch["labels"].shape, VOCAB_SIZE))
    logq = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    logp = batch["target_logprobs"]
    terms = np.exp(logp) * (logp - np.take_along_axis(logq, batch["target_token_ids"], axis=-1))
    loss = terms[batch["target_mask"].astype(bool)].sum()
    assert math.isclose(loss, sum(own_loss(trace, logq[at]) for at, trace in enumerate(traces)), rel_tol=1e-9)
    shifted = np.pad(batch["labels"], ((0, 0), (0, 1)), constant_values=-100)[:, 1:]
    said = [token for trace in traces for token in trace.completion]
    assert shifted[shifted != -100].tolist() == said


def own_loss(trace: Expected, logq: np.ndarray) -> float:
    """Sum of p (log p - log q) over the supports; logits at position P + j - 1 predict completion token j."""
    return sum(
        math.exp(p) * (p - logq[len(trace.prompt) + j - 1, token])
        for j, entry in enumerate(trace.distributions)
        for token, p in entry.items()
    )


def test_the_readme_holds_the_settings_that_the_rows_need(corpus: Corpus, tmp_path: Path) -> None:
    export_corpus(corpus, "axolotl", tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    settings = yaml.safe_load(readme.split("```yaml\n")[1].split("```")[0])
    assert (settings["kd_temperature"], settings["kd_normalize_topk"]) == (1.0, False)
    assert settings["skip_prepare_dataset"] is True
    assert settings["sequence_len"] == max(
        len(trace.prompt) + len(trace.completion) for split in corpus.splits for trace in expected(corpus, split)
    )
    assert settings["datasets"] == [{"path": "FOLDER", "split": "train", "type": None}]
    assert settings["test_datasets"] == [{"path": "FOLDER", "split": "validation", "type": None}]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_one_split_alone(corpus: Corpus, tmp_path: Path, split: str) -> None:
    report = export_corpus(corpus, "axolotl", tmp_path / "out", split)
    assert report.rows == {split: corpus.manifest.counts[split]}
    loaded: Any = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {split}
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"split: {split}, type" in readme and "test_datasets" not in readme
