from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from distill_data.errors import ModelError
from distill_data.records import SoftLabels
from distill_data.soft_labels import tail_mass
from distill_data.student.collate import PackedCollator, SoftLabelCollator, as_rectangle
from distill_data.student.dataset import SoftLabelDataset
from distill_data.student.model import check_packing
from tests.unit.student.conftest import TRACES, label_logits, label_table
from tests.unit.student.test_dataset import row

LABELS = ("target_ids", "sampled_logprobs", "support_ids", "support_logprobs", "tail_logprobs")
INF = float("inf")

OTHER = row(
    prompt_token_ids=[4],
    completion_token_ids=[3, 2],
    sampled_logprobs=[-1.0, -2.0],
    support_counts=[1, 1],
    support_ids=[3, 2],
    support_logprobs=[-0.25, 0.0],
)


@pytest.fixture
def two() -> list[dict[str, np.ndarray]]:
    dataset = SoftLabelDataset(label_table([row(), OTHER]), max_length=10)
    return [dataset[0], dataset[1]]


@pytest.fixture
def rows(labels: pa.Table) -> list[dict[str, np.ndarray]]:
    dataset = SoftLabelDataset(labels, max_length=1000)
    return [dataset[index] for index in range(TRACES)]


def test_padded_batch_is_aligned_with_the_logits_that_predict(two: list[Any]) -> None:
    batch = SoftLabelCollator(pad_token_id=99)(two)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [4, 3, 2, 99, 99]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["label_mask"].int().tolist() == [[0, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
    assert batch["target_ids"].tolist() == [7, 8, 9, 3, 2]
    assert batch["support_ids"].tolist() == [[7, 1, 0], [8, 0, 0], [2, 9, 3], [3, 0, 0], [2, 0, 0]]
    assert batch["support_logprobs"].tolist() == [
        [-0.5, -1.0, -INF],
        [0.0, -INF, -INF],
        [-1.0, -2.0, -4.0],
        [-0.25, -INF, -INF],
        [0.0, -INF, -INF],
    ]
    assert batch["target_ids"].dtype == torch.int64 and batch["support_logprobs"].dtype == torch.float32
    torch.testing.assert_close(batch["sampled_logprobs"], torch.tensor([-0.1, -0.2, -0.3, -1.0, -2.0]))


def test_packed_batch_is_the_same_end_to_end(two: list[Any]) -> None:
    batch = PackedCollator()(two)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4, 3, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]
    assert batch["label_mask"].int().tolist() == [[0, 1, 1, 1, 0, 1, 1, 0]]
    assert "attention_mask" not in batch
    padded = SoftLabelCollator()(two)
    assert all(torch.equal(batch[name], padded[name]) for name in LABELS)


def test_tail_is_what_the_support_leaves(two: list[Any], rows: list[Any]) -> None:
    tail = SoftLabelCollator()(two)["tail_logprobs"]
    left = [1 - np.exp(-0.5) - np.exp(-1), 0, 1 - sum(np.exp([-1, -2, -4])), 1 - np.exp(-0.25), 0]
    np.testing.assert_allclose(tail.exp(), left, atol=1e-6)
    assert (tail == -INF).tolist() == [False, True, False, False, True]
    flat = [np.concatenate([row[name] for row in rows]) for name in SoftLabels.__dataclass_fields__]
    tail = SoftLabelCollator()(rows)["tail_logprobs"]
    np.testing.assert_allclose(tail.exp(), tail_mass(SoftLabels(*flat)), atol=1e-5)


@pytest.mark.parametrize("collate", [SoftLabelCollator(), PackedCollator()], ids=["padded", "packed"])
def test_batches_hold_exactly_the_ids_of_their_traces(collate: Any, rows: list[Any]) -> None:
    batch = collate(rows)
    shifted = batch["label_mask"].roll(1, dims=1)
    assert (batch["input_ids"][shifted] == batch["target_ids"]).all()
    filled = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    whole = [np.concatenate([row["prompt_token_ids"], row["completion_token_ids"]]) for row in rows]
    assert batch["input_ids"][filled].tolist() == np.concatenate(whole).tolist()


def test_every_position_keeps_its_own_support(rows: list[Any]) -> None:
    batch = SoftLabelCollator()(rows)
    at = 0
    for trace in rows:
        ends = np.cumsum(trace["support_counts"], dtype=int)
        for end, count in zip(ends, trace["support_counts"], strict=True):
            ids, logprobs = batch["support_ids"][at], batch["support_logprobs"][at]
            assert ids[:count].tolist() == trace["support_ids"][end - count : end].tolist()
            assert logprobs[:count].tolist() == trace["support_logprobs"][end - count : end].tolist()
            assert not ids[count:].any() and (logprobs[count:] == -INF).all()
            at += 1
    assert at == len(batch["support_ids"])


def test_batches_of_one_width_are_those_of_several(rows: list[Any], two: list[Any]) -> None:
    """Where every position keeps equally many tokens there is nothing to pad; no batch changes one before it."""
    width = 3
    fixed = []
    for trace in rows:
        tokens = len(trace["completion_token_ids"])
        supports = {
            "support_counts": np.full(tokens, width, np.uint8),
            "support_ids": np.arange(width * tokens, dtype=np.int32),
            "support_logprobs": np.tile(np.array([-1, -2, -4], np.float16), tokens),
        }
        fixed.append({**trace, **supports})
    batch = SoftLabelCollator()(fixed)
    kept = {name: values.clone() for name, values in batch.items()}
    SoftLabelCollator()(two)
    assert all(torch.equal(batch[name], values) for name, values in kept.items())
    assert (
        batch["support_ids"].tolist() == np.concatenate([one["support_ids"].reshape(-1, 3) for one in fixed]).tolist()
    )
    assert batch["support_ids"].dtype == torch.int64
    assert (batch["support_logprobs"] == torch.tensor([-1.0, -2.0, -4.0])).all()
    left = 1 - np.exp([-1.0, -2.0, -4.0]).sum()
    np.testing.assert_allclose(batch["tail_logprobs"].exp(), np.full(len(batch["target_ids"]), left), atol=1e-6)


def test_rectangle_has_a_row_for_every_position(two: list[Any]) -> None:
    batch = SoftLabelCollator()(two)
    rectangle = as_rectangle(batch)
    assert rectangle["support_ids"].shape == rectangle["support_logprobs"].shape == (2, 5, 3)
    assert rectangle["tail_logprobs"].shape == rectangle["target_ids"].shape == (2, 5)
    assert rectangle["support_ids"][0].tolist() == [[0, 0, 0], [7, 1, 0], [8, 0, 0], [2, 9, 3], [0, 0, 0]]
    for name, values in rectangle.items():
        assert torch.equal(values[batch["label_mask"]], batch[name])
    assert (rectangle["support_logprobs"][~batch["label_mask"]] == -INF).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_traces_have_the_logits_of_single_ones(
    attention: str, teacher: PreTrainedModel, rows: list[Any]
) -> None:
    model = type(teacher)(teacher.config)
    model.load_state_dict(teacher.state_dict())
    model.set_attn_implementation(attention)
    model.eval()
    with torch.inference_mode():
        packed = label_logits(model, PackedCollator()(rows))
        single = torch.cat([label_logits(model, SoftLabelCollator()([one])) for one in rows])
        padded = label_logits(model, SoftLabelCollator()(rows))
    torch.testing.assert_close(packed, single, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-4)


def test_packing_is_refused_where_attention_crosses(teacher: PreTrainedModel) -> None:
    check_packing(teacher)
    assert not teacher.training
    fields = {"vocab_size": 64, "hidden_size": 64, "n_layer": 1, "n_head": 2, "initializer_range": 0.3}
    bloom = AutoModelForCausalLM.from_config(AutoConfig.for_model("bloom", **fields))
    with pytest.raises(ModelError, match=r"see each other in the student's Bloom.*batching to padded"):
        check_packing(bloom)
    gpt2 = AutoConfig.for_model("gpt2", vocab_size=64, n_embd=64, n_layer=1, n_head=2, initializer_range=0.3)
    check_packing(AutoModelForCausalLM.from_config(gpt2))
