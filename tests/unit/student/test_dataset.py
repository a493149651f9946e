from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from distill_data.errors import StudentError
from distill_data.student.collate import SoftLabelCollator
from distill_data.student.dataset import SoftLabelDataset
from distill_data.student.losses import cross_entropy, tail_bucket_kl
from tests.unit.student.conftest import label_table


def row(**changes: Any) -> dict[str, Any]:
    """Two prompt tokens and three completion tokens with 2, 1 and 3 kept."""
    return {
        "trace_id": "a-b-0",
        "prompt_token_ids": [5, 6],
        "completion_token_ids": [7, 8, 9],
        "sampled_logprobs": [-0.1, -0.2, -0.3],
        "support_counts": [2, 1, 3],
        "support_ids": [7, 1, 8, 2, 9, 3],
        "support_logprobs": [-0.5, -1.0, 0.0, -1.0, -2.0, -4.0],
    } | changes


def test_items_are_the_rows_of_the_table_across_chunks_and_slices(labels: pa.Table) -> None:
    part = labels.slice(3, 10)
    dataset = SoftLabelDataset(part, max_length=1000)
    assert part.column("trace_id").num_chunks == 3
    assert len(dataset) == 10 and dataset.too_long == 0
    expected = part.drop_columns("trace_id").to_pylist()
    assert [{k: v.tolist() for k, v in dataset[i].items()} for i in range(10)] == expected
    assert dataset[0]["support_ids"].base is not None  # a view
    lengths = [len(r["prompt_token_ids"]) + len(r["completion_token_ids"]) for r in expected]
    assert dataset.longest == max(lengths)
    names = ("prompt_token_ids", "completion_token_ids", "support_ids")
    assert dataset.max_token_id == max(max(r[name]) for r in expected for name in names)


def test_long_traces_are_left_out_and_counted() -> None:
    table = label_table([row(), row(trace_id="long", prompt_token_ids=[1] * 9), row(prompt_token_ids=[4, 4, 4])])
    dataset = SoftLabelDataset(table, max_length=6)
    assert [item["prompt_token_ids"].tolist() for item in map(dataset.__getitem__, range(2))] == [
        [5, 6],
        [4, 4, 4],
    ]
    assert (len(dataset), dataset.too_long, dataset.longest) == (2, 1, 6)
    assert len(SoftLabelDataset(table, max_length=5)) == 1
    with pytest.raises(StudentError, match=r"all 3 traces .* 4 \(the shortest has 5 tokens\).*raise"):
        SoftLabelDataset(table, max_length=4)


def test_a_dataloaders_spawned_workers_get_the_same() -> None:
    dataset = SoftLabelDataset(label_table([row(), row(prompt_token_ids=[4, 4, 4])]), max_length=6)
    there = pickle.loads(pickle.dumps(dataset))
    for ours, theirs in zip(map(dataset.__getitem__, range(2)), map(there.__getitem__, range(2)), strict=True):
        assert {name: values.tolist() for name, values in ours.items()} == {
            name: values.tolist() for name, values in theirs.items()
        }


def test_no_traces_is_an_error() -> None:
    with pytest.raises(StudentError, match="no traces"):
        SoftLabelDataset(label_table([]), max_length=10)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt_token_ids": []},
        {"completion_token_ids": [7, 8]},
        {"sampled_logprobs": [-0.1, -0.2]},
        {"support_counts": [2, 1, 2]},
        {"support_ids": [7, 1, 8, 2, 9]},
        {"support_logprobs": [-0.5, -1.0, float("nan"), -1.0, -2.0, -4.0]},
        {"support_logprobs": [-0.5, -1.0, -float("inf"), -1.0, -2.0, -4.0]},
        {"support_logprobs": [-0.5, -1.0, float("inf"), -1.0, -2.0, -4.0]},
        {"support_logprobs": [-0.5, -1.0, -float("nan"), -1.0, -2.0, -4.0]},
        {"support_logprobs": [-0.5, -1.0, 0.5, -1.0, -2.0, -4.0]},
    ],
)
def test_a_trace_whose_columns_do_not_fit_is_named(changes: dict[str, Any]) -> None:
    table = label_table([row(), row(trace_id="bad-one", **changes), row()])
    with pytest.raises(
        StudentError, match=r"bad-one has soft labels that do not fit .*\(1 such traces\).*corpus verify"
    ):
        SoftLabelDataset(table, max_length=100)


BARE: dict[str, Any] = {
    "support_counts": [0, 1, 0],
    "support_ids": [8],
    "support_logprobs": [-0.5],
}


def test_a_token_without_labels_is_refused_unless_the_config_says_otherwise() -> None:
    table = label_table([row(), row(trace_id="bare", **BARE)])
    with pytest.raises(StudentError, match=r"bare has tokens without soft labels \(1 such .*cross_entropy"):
        SoftLabelDataset(table, max_length=100)


def test_a_token_that_the_teacher_never_saw_has_no_log_probability() -> None:
    """As a student reads them in tokens of its own; `corpus verify` refuses it in a file."""
    unseen = row(sampled_logprobs=[float("nan")] * 3)
    logprobs = SoftLabelDataset(label_table([unseen]), max_length=100)[0]["sampled_logprobs"]
    assert np.isnan(logprobs).all()


def test_a_token_without_labels_becomes_a_hard_one() -> None:
    dataset = SoftLabelDataset(
        label_table([row(trace_id="bare", **BARE), row(), row(**BARE)]).slice(1), 100, unlabelled="cross_entropy"
    )
    whole, bare = ({name: values.tolist() for name, values in dataset[index].items()} for index in range(2))
    assert whole == {name: value for name, value in row().items() if name != "trace_id"} | {
        "sampled_logprobs": pytest.approx([-0.1, -0.2, -0.3])
    }
    assert (bare["support_counts"], bare["support_ids"]) == ([1, 1, 1], [7, 8, 9])
    assert bare["support_logprobs"] == [0.0, -0.5, 0.0]


def test_the_loss_of_a_hard_label_is_its_cross_entropy() -> None:
    table = label_table([row(support_counts=[0, 0, 0], support_ids=[], support_logprobs=[])])
    batch = SoftLabelCollator()([SoftLabelDataset(table, 100, unlabelled="cross_entropy")[0]])
    logits = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    found = tail_bucket_kl(logits, batch["support_ids"], batch["support_logprobs"])
    assert found.tolist() == pytest.approx(cross_entropy(logits, batch["target_ids"]).tolist(), rel=1e-6)
