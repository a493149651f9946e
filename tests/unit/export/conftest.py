"""A corpus with ragged supports, EOS and Unicode, and the distributions that its own files hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from distill_data.corpus.assemble import assemble
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.export import export_corpus
from distill_data.records import Prompt, Trace
from tests.unit.corpus.conftest import (
    VOCAB_SIZE,
    MakeJob,
    make_job,  # noqa: F401 (a fixture)
    make_labels,
    make_trace,
)

EOS = 2
Distribution = dict[int, float]  # token id to log-probability


@dataclass(frozen=True)
class Expected:
    """A trace as the corpus' own files say it; `distributions[j]` is the one that completion token j came from."""

    prompt: list[int]
    completion: list[int]
    distributions: list[Distribution]


def ragged_trace(prompt: Prompt, sample: int, rng: np.random.Generator) -> Trace:
    """A trace of 1 to 14 tokens that ends with EOS, after a prompt of 1 to 6."""
    tokens = int(rng.integers(1, 15))
    completion = np.append(rng.integers(3, VOCAB_SIZE - 5, tokens - 1), EOS).astype(np.int32)
    return make_trace(
        prompt,
        sample,
        f"<think>\nwägen {sample}\n</think>\n\n很好 🙂 {sample}",
        prompt_token_ids=rng.integers(3, VOCAB_SIZE - 5, int(rng.integers(1, 7))).astype(np.int32),
        completion_token_ids=completion,
        soft_labels=make_labels(int(rng.integers(2**31)), tokens),
    )


@pytest.fixture(params=[0, 1])
def corpus(request: pytest.FixtureRequest, make_job: MakeJob, tmp_path: Path) -> Corpus:  # noqa: F811
    """sums@v1: two files in train, one in validation."""
    rng = np.random.default_rng(request.param)
    prompts = [Prompt([{"role": "user", "content": f"Was ist {n}? “ß”\u2028"}], "sums", str(n)) for n in range(12)]
    traces = [ragged_trace(prompt, sample, rng) for prompt in prompts for sample in range(2)]
    job = make_job(prompts, traces, storage={"rows_per_file": 15}, validation={"fraction": 0.2})
    assemble(job, lambda progress: None)
    return open_corpus("sums@v1", tmp_path)


def expected(corpus: Corpus, split: str) -> list[Expected]:
    """What an export has to say, row by row."""
    return [_expected(row) for row in corpus.table("soft_labels", split).to_pylist()]


def _expected(row: dict[str, Any]) -> Expected:
    ends = np.cumsum(row["support_counts"])
    spans = [slice(end - count, end) for end, count in zip(ends, row["support_counts"], strict=True)]
    distributions = [
        {int(token): float(p) for token, p in zip(row["support_ids"][s], row["support_logprobs"][s], strict=True)}
        for s in spans
    ]
    return Expected(row["prompt_token_ids"], row["completion_token_ids"], distributions)


def exported(corpus: Corpus, format: str, folder: Path) -> Any:
    """An export, loaded with nothing but datasets."""
    export_corpus(corpus, format, folder)
    return datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))


def replace_labels(batch: pa.RecordBatch, row: int, **values: Any) -> pa.RecordBatch:
    """A batch of soft labels with other values in one of its rows."""
    rows = batch.to_pylist()
    rows[row].update(values)
    return pa.RecordBatch.from_pylist(rows, batch.schema)
