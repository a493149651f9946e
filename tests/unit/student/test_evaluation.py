from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import PreTrainedModel

from distill_data.errors import StudentError
from distill_data.evaluate_config import Evaluate
from distill_data.student.evaluation import evaluate_student
from tests.unit.student.conftest import TRACES, label_table

# Labels carry 6 mantissa bits: log p is off by at most 2^-7 of itself. KL between two distributions that
# differ by d = 2^-7 log p is d^2 / 2 to second order, and -log p is below 8 where there is mass.
ROUNDING = (8 / 128) ** 2 / 2


def test_a_student_that_is_the_teacher(teacher: PreTrainedModel, labels: pa.Table) -> None:
    result = evaluate_student(teacher, labels, Evaluate(batch_size=7), max_length=64)
    assert result.kl is not None and 0 <= result.kl < ROUNDING
    assert result.top1_agreement == 1.0
    assert result.cross_entropy == pytest.approx(result.teacher_cross_entropy, abs=1e-5)
    assert result.perplexity == pytest.approx(math.exp(result.cross_entropy))
    assert result.traces == TRACES and result.too_long == 0
    assert result.tokens == sum(map(len, labels["completion_token_ids"].to_pylist()))


def test_teacher_numbers_come_from_the_labels(teacher: PreTrainedModel, labels: pa.Table) -> None:
    result = evaluate_student(teacher, labels, Evaluate(), max_length=64)
    sampled = [x for row in labels["sampled_logprobs"].to_pylist() for x in row]
    assert result.teacher_cross_entropy == pytest.approx(-sum(sampled) / len(sampled), rel=1e-5)
    assert result.teacher_cross_entropy is not None and result.teacher_entropy is not None
    # Sampled from itself, the teacher's cross-entropy estimates its entropy, which the bucket bounds.
    assert 0.5 * result.teacher_cross_entropy < result.teacher_entropy < 1.1 * result.teacher_cross_entropy


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_shifted_by_one_token_are_far_away(shift: int, teacher: PreTrainedModel, labels: pa.Table) -> None:
    result = evaluate_student(teacher, label_table(_shifted(labels, shift)), Evaluate(), max_length=64)
    assert result.kl is not None and result.kl > 100 * ROUNDING
    assert result.top1_agreement is not None and result.top1_agreement < 0.5


def test_result_does_not_depend_on_the_batches(teacher: PreTrainedModel, labels: pa.Table) -> None:
    generator = torch.Generator().manual_seed(0)
    student = type(teacher)(teacher.config).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    one = evaluate_student(student, labels, Evaluate(batch_size=1), max_length=64)
    many = evaluate_student(student, labels, Evaluate(batch_size=16), max_length=64)
    found = [{name: value for name, value in vars(result).items() if value is not None} for result in (one, many)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert one.distance > 0.5


def test_takes_the_first_traces_and_leaves_long_ones_out(teacher: PreTrainedModel, labels: pa.Table) -> None:
    first = evaluate_student(teacher, labels, Evaluate(max_traces=6), max_length=20)
    lengths = [len(r["prompt_token_ids"]) + len(r["completion_token_ids"]) for r in labels.slice(0, 6).to_pylist()]
    assert 0 < sum(length <= 20 for length in lengths) < 6
    assert first.traces == sum(length <= 20 for length in lengths)
    assert first.too_long == 6 - first.traces


def test_leaves_the_model_as_it_was(teacher: PreTrainedModel, labels: pa.Table) -> None:
    teacher.train()
    evaluate_student(teacher, labels.slice(0, 2), Evaluate(), max_length=64)
    assert teacher.training
    teacher.eval()
    evaluate_student(teacher, labels.slice(0, 2), Evaluate(), max_length=64)
    assert not teacher.training


def test_no_held_out_traces_is_an_error(teacher: PreTrainedModel, labels: pa.Table) -> None:
    with pytest.raises(StudentError, match=r"no held-out traces: set validation.fraction"):
        evaluate_student(teacher, labels.slice(0, 0), Evaluate(), max_length=64)


def _shifted(labels: pa.Table, shift: int) -> list[dict[str, Any]]:
    """The same tokens, each with the distribution of its neighbour."""
    rows = labels.to_pylist()
    for row in rows:
        counts, ids, logprobs = row["support_counts"], row["support_ids"], row["support_logprobs"]
        ends = [sum(counts[: t + 1]) for t in range(len(counts))]
        order = [(t + shift) % len(counts) for t in range(len(counts))]
        spans = [range(ends[t] - counts[t], ends[t]) for t in order]
        row["support_counts"] = [counts[t] for t in order]
        row["support_ids"] = [ids[i] for span in spans for i in span]
        row["support_logprobs"] = [logprobs[i] for span in spans for i in span]
    return rows
