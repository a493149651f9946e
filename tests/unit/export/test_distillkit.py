"""What DistillKit reads (arcee-ai/DistillKit: main.py 3540a81, trainer.py b8ed189, lossfuncs/kl.py 361c7ac).

With `prepacked` its collator stacks every column of a batch into one tensor, and its loader drops rows at the end that
are not as long as the first. Its KL gathers the logits at a position by that position's `token_ids` and is masked by
`labels >= 0` at the same position; `symmetric_uniform` adds m log(m / n), where m and n are what the values and the
gathered probabilities leave of 1; `zero` normalises the values to 1 first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from distill_data.corpus.read import Corpus
from distill_data.export import export_corpus
from distill_data.export.distillkit import PADDED_LOGPROB
from distill_data.export.distributions import measure
from tests.unit.corpus.conftest import VOCAB_SIZE

from .conftest import EOS, Distribution, expected, exported

COLUMNS = ["input_ids", "attention_mask", "labels", "token_ids", "top_values"]
Loss = Callable[[np.ndarray, np.ndarray], float]


def with_tail_bucket(logp: np.ndarray, logq: np.ndarray) -> float:
    """`symmetric_uniform` at one position."""
    rest_p, rest_q = (np.log(-np.expm1(min(np.logaddexp.reduce(values), -1e-6))) for values in (logp, logq))
    return float((np.exp(logp) * (logp - logq)).sum() + np.exp(rest_p) * (rest_p - rest_q))


def renormalised(logp: np.ndarray, logq: np.ndarray) -> float:
    """`zero` at one position."""
    logp = logp - np.logaddexp.reduce(logp)
    return float((np.exp(logp) * (logp - logq)).sum())


def test_rows_of_one_shape_hold_the_corpus_own_distributions(corpus: Corpus, tmp_path: Path) -> None:
    loaded = exported(corpus, "distillkit", tmp_path / "out")
    extent = measure(corpus, corpus.splits)
    assert set(loaded) == set(corpus.splits)
    for split in corpus.splits:
        rows = expected(corpus, split)
        assert loaded[split].column_names == COLUMNS
        assert len(loaded[split]) == len(rows)
        for row, trace in zip(loaded[split], rows, strict=True):
            tokens, prompt = trace.prompt + trace.completion, len(trace.prompt)
            padded = extent.longest - len(tokens)
            assert row["input_ids"] == tokens + [EOS] * padded
            assert row["attention_mask"] == [1] * len(tokens) + [0] * padded
            predicts = range(prompt - 1, len(tokens) - 1)
            assert row["labels"] == [tokens[t] if t in predicts else -100 for t in range(extent.longest)]
            for t, (ids, values) in enumerate(zip(row["token_ids"], row["top_values"], strict=True)):
                own: Distribution = trace.distributions[t - prompt + 1] if t in predicts else {}
                rest = extent.widest - len(own)
                assert ids == list(own) + [extent.rarest_id] * rest
                assert values == list(own.values()) + [PADDED_LOGPROB] * rest


def test_every_column_stacks_to_one_array_of_numbers(corpus: Corpus, tmp_path: Path) -> None:
    loaded = exported(corpus, "distillkit", tmp_path / "out")
    extent = measure(corpus, corpus.splits)
    shapes = {name: np.array(loaded["train"][name][:]).shape for name in COLUMNS}
    whole = (corpus.manifest.counts["train"], extent.longest)
    assert shapes == {name: whole if name in COLUMNS[:3] else (*whole, extent.widest) for name in COLUMNS}


@pytest.mark.parametrize("loss", [with_tail_bucket, renormalised])
def test_the_masked_kl_is_that_of_the_corpus_own_distributions(corpus: Corpus, tmp_path: Path, loss: Loss) -> None:
    rows = exported(corpus, "distillkit", tmp_path / "out")["train"]
    rarest = measure(corpus, corpus.splits).rarest_id
    rng = np.random.default_rng(6)
    for row, trace in zip(rows, expected(corpus, "train"), strict=True):
        logits = rng.normal(0.0, 2.0, (len(row["labels"]), VOCAB_SIZE))
        logits[:, rarest] = -60.0  # what no distribution holds, a student does not predict
        logq = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        theirs = sum(
            loss(np.array(row["top_values"][t]), logq[t, row["token_ids"][t]])
            for t, label in enumerate(row["labels"])
            if label >= 0
        )
        ours = sum(
            loss(np.array(list(entry.values())), logq[len(trace.prompt) + j - 1, list(entry)])
            for j, entry in enumerate(trace.distributions)
        )
        assert math.isclose(theirs, ours, rel_tol=1e-9)


def test_padding_is_nothing_in_float32_and_finite_in_float16() -> None:
    assert np.isfinite(np.float16(PADDED_LOGPROB))
    assert 64 * np.exp(np.float32(PADDED_LOGPROB)) < 1e-40


def test_the_readme_holds_the_settings_that_the_rows_need(corpus: Corpus, tmp_path: Path) -> None:
    export_corpus(corpus, "distillkit", tmp_path / "out")
    extent = measure(corpus, corpus.splits)
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    settings = yaml.safe_load(readme.split("```yaml\n")[1].split("```")[0])
    assert settings["sequence_length"] == extent.longest
    assert settings["dataset"] == {
        "train_dataset": {"repo_id": "FOLDER", "split": "train"},
        "eval_dataset": {"repo_id": "FOLDER", "split": "validation"},
        "prepacked": True,
    }
    compressor = settings["teacher"]["logprob_compressor"]
    assert (compressor["d"], compressor["k"], compressor["exact_k"]) == (VOCAB_SIZE, extent.widest, extent.widest)
    assert settings["loss_functions"][0]["missing_probability_handling"] == "symmetric_uniform"
    assert settings["training_args"] == {"remove_unused_columns": False}
