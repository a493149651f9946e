"""Soft labels of a tiny teacher, cut from its own full-vocabulary log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedModel

from distill_data.records import SOFT_LABELS_SCHEMA
from distill_data.soft_labels import select_support
from distill_data.student.forward import batch_logits
from distill_data.student.model import load_saved_student
from distill_data.teacher_config import SoftLabelSelection

TOP = 128
TRACES = 40


def label_logits(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits [N, V] at the N positions with labels."""
    logits, mask = batch_logits(model, batch)
    return logits[mask]


def label_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SOFT_LABELS_SCHEMA)


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads of tiny tensors only wait for each other on a busy machine
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def teacher(tiny_model: Path) -> PreTrainedModel:
    return load_saved_student(tiny_model).eval()


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="session")
def labels(teacher: PreTrainedModel, tokenizer: Any) -> pa.Table:
    """40 sampled traces with 2 to 6 prompt tokens and 4 to 28 completion tokens, in several chunks."""
    ids = _sampled_ids(teacher, len(tokenizer), length=34)
    shapes = [(2 + index % 5, 4 + (index * 7) % 25) for index in range(TRACES)]
    rows = [_scored_row(teacher, ids[i, : sum(shapes[i])], shapes[i][0], i) for i in range(TRACES)]
    chunks = [rows[:7], rows[7:8], rows[8:]]
    return pa.concat_tables([label_table(chunk) for chunk in chunks])


@pytest.fixture(scope="session")
def scored(teacher: PreTrainedModel) -> pa.Table:
    """72 traces over an alphabet of 12 tokens, scored by the teacher: few enough contexts to learn in seconds."""
    ids = torch.randint(40, 52, (72, 26), generator=torch.Generator().manual_seed(2))
    return label_table([_scored_row(teacher, row, 2, index) for index, row in enumerate(ids)])


@torch.inference_mode()
def _sampled_ids(teacher: Any, vocabulary: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, vocabulary, (TRACES, 1), generator=generator)
    for _ in range(length - 1):
        probabilities = teacher(input_ids=ids).logits[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probabilities, 1, generator=generator)], 1)
    return ids


@torch.inference_mode()
def _scored_row(teacher: Any, ids: torch.Tensor, prompt_length: int, index: int) -> dict[str, Any]:
    logprobs = teacher(input_ids=ids[None]).logits[0].double().log_softmax(-1)[prompt_length - 1 : -1]
    top, completion = logprobs.topk(TOP, dim=1), ids[prompt_length:]
    sampled = logprobs.gather(1, completion[:, None])[:, 0].numpy()
    selection = SoftLabelSelection(max_support=TOP)
    return {
        "trace_id": f"trace-{index}",
        "prompt_token_ids": ids[:prompt_length].numpy().astype(np.int32),
        "completion_token_ids": completion.numpy().astype(np.int32),
        **vars(select_support(top.indices.numpy(), top.values.numpy(), sampled, selection)),
    }
