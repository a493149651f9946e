from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distill_data.corpus.read import Corpus
from distill_data.errors import CorpusError
from distill_data.export.distributions import IGNORED, measure, position_labels
from distill_data.records import SOFT_LABELS_SCHEMA

from .conftest import expected, replace_labels


def batch_of(corpus: Corpus, split: str = "train") -> pa.RecordBatch:
    return next(corpus.batches("soft_labels", split, 1000))


def test_a_distribution_stands_one_position_before_its_token(corpus: Corpus) -> None:
    flat = position_labels(batch_of(corpus))
    at, support = 0, 0
    for trace in expected(corpus, "train")[: len(flat.lengths)]:
        tokens = trace.prompt + trace.completion
        assert flat.input_ids[at : at + len(tokens)].tolist() == tokens
        widths = [0] * (len(trace.prompt) - 1) + [len(entry) for entry in trace.distributions] + [0]
        assert flat.counts[at : at + len(tokens)].tolist() == widths
        assert flat.labels[at : at + len(tokens)].tolist() == [IGNORED] * len(trace.prompt) + trace.completion
        for entry in trace.distributions:
            kept = slice(support, support + len(entry))
            assert flat.support_ids[kept].tolist() == list(entry)
            assert flat.support_logprobs[kept].tolist() == list(entry.values())
            support += len(entry)
        at += len(tokens)
    assert (at, support) == (len(flat.input_ids), len(flat.support_ids))


def test_a_slice_of_a_batch_is_itself(corpus: Corpus) -> None:
    batch = batch_of(corpus)
    whole, part = position_labels(batch), position_labels(batch.slice(3, 5))
    before, after = whole.lengths[:3].sum(), whole.lengths[:8].sum()
    assert part.input_ids.tolist() == whole.input_ids[before:after].tolist()
    assert part.counts.tolist() == whole.counts[before:after].tolist()


def test_the_extent_is_that_of_all_splits(corpus: Corpus) -> None:
    traces = [trace for split in corpus.splits for trace in expected(corpus, split)]
    extent = measure(corpus, corpus.splits)
    assert extent.longest == max(len(trace.prompt) + len(trace.completion) for trace in traces)
    assert extent.widest == max(len(entry) for trace in traces for entry in trace.distributions)
    in_supports = [token for trace in traces for entry in trace.distributions for token in entry]
    highest = max(in_supports + [token for trace in traces for token in trace.prompt + trace.completion])
    counts = np.bincount(in_supports, minlength=highest + 1)
    assert counts[extent.rarest_id] == counts.min()
    assert (counts[extent.rarest_id + 1 :] > counts.min()).all()


UNLABELLED: dict[str, dict[str, Any]] = {
    "none at all": {"sampled_logprobs": [], "support_counts": [], "support_ids": [], "support_logprobs": []},
    "null": {"support_counts": None, "support_ids": None, "support_logprobs": None},
    "no completion": {"completion_token_ids": []},
    "no prompt": {"prompt_token_ids": []},
    "one id less": {"support_ids": [1, 2], "support_logprobs": [-1.0, -2.0]},
}


@pytest.mark.parametrize("case", UNLABELLED)
def test_a_trace_without_soft_labels_is_named(corpus: Corpus, case: str) -> None:
    batch = batch_of(corpus)
    broken = replace_labels(batch, 4, **UNLABELLED[case])
    name = batch.column("trace_id")[4].as_py()
    with pytest.raises(CorpusError, match=rf"trace {name} has no soft labels .*\(1 such traces among {len(batch)}\)"):
        position_labels(broken)


def test_a_position_without_support_or_a_number_is_named(corpus: Corpus) -> None:
    batch = batch_of(corpus)
    row = next(at for at, labels in enumerate(batch.to_pylist()) if len(labels["support_counts"]) > 1)
    labels = batch.to_pylist()[row]
    first = labels["support_counts"][0]
    emptied = {
        "support_counts": [0, *labels["support_counts"][1:]],
        "support_ids": labels["support_ids"][first:],
        "support_logprobs": labels["support_logprobs"][first:],
    }
    unfinite = {"support_logprobs": [*labels["support_logprobs"][:-1], float("nan")]}
    for changes in (emptied, unfinite):
        with pytest.raises(CorpusError, match=f"trace {labels['trace_id']} has no soft labels for each of its"):
            position_labels(replace_labels(batch, row, **changes))


def test_batches_stay_small_for_long_traces() -> None:
    from distill_data.export.distributions import Extent

    assert Extent(longest=100_000, widest=255, rarest_id=0).batch_rows == 1
    assert Extent(longest=1_000, widest=64, rarest_id=0).batch_rows == 125
    assert SOFT_LABELS_SCHEMA.field("support_counts").type.value_type == pa.uint8()  # 255 is the widest there is
