"""What the README says about reading a corpus runs as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_data import open_corpus
from distill_data.corpus.card import REBUILD_LINES
from tests.docs.conftest import blocks


def run(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the README's block with this in it leaves behind, where `data` is in the folder."""
    (block,) = [block for block in blocks("python") if part in block]
    monkeypatch.chdir(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def test_plain_numpy_rebuilds_a_distribution(quickstart_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run("load_dataset(", quickstart_corpus, monkeypatch)
    (block,) = [block for block in blocks("python") if "load_dataset(" in block]
    assert REBUILD_LINES in block
    reader = open_corpus("quickstart@v1", "data").reader()
    trace = reader[0]
    start = int(trace["support_counts"][:2].sum())
    kept = slice(start, start + trace["support_counts"][2])
    ids, p = trace["support_ids"][kept], np.exp(trace["support_logprobs"][kept].astype(np.float64))
    distribution = found["distribution"]
    assert len(found["labels"]) == len(reader) and distribution.shape == (400,)
    np.testing.assert_allclose(distribution[ids], p)
    outside = np.delete(distribution, ids)
    np.testing.assert_allclose(outside, max(0.0, 1 - p.sum()) / len(outside))
    assert 0 < outside[0] < p.min()


def test_a_streamed_epoch_is_every_trace(
    quickstart_corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(".stream(", quickstart_corpus, monkeypatch)
    batches = -(-found["stream"].traces // 8)
    assert len(capsys.readouterr().out.splitlines()) == batches
