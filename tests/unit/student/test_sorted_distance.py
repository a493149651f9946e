from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from distill_data.student.losses import mixed_loss, tail_bucket_kl, universal_logit_distance
from distill_data.student_config import Loss
from tests.unit.student.test_losses import VOCABULARY, student_and_teacher, teacher_support

ULD = Loss(objective="uld", kl=0.7, cross_entropy=0.3)


def by_definition(logits: Tensor, logprobs: Tensor) -> Tensor:
    """Sorted probabilities side by side, float64, the rest of both as one bucket; one position at a time."""
    result = []
    for row, kept in zip(logits.double(), logprobs.double(), strict=True):
        p = kept[kept > -math.inf].exp()
        q = row.softmax(0).sort(descending=True).values
        rest = (1 - p.sum()).clamp_min(0) - q[len(p) :].sum()
        result.append((p - q[: len(p)]).abs().sum() + rest.abs())
    return torch.stack(result)


@pytest.mark.parametrize("width", [1, 7, VOCABULARY])
def test_it_is_its_definition(width: int) -> None:
    student, teacher = student_and_teacher()
    _, logprobs = teacher_support(teacher, width)
    logprobs[0, width // 2 + 1 :] = -torch.inf
    torch.testing.assert_close(universal_logit_distance(student, logprobs), by_definition(student, logprobs))
    torch.testing.assert_close(
        universal_logit_distance(student.float(), logprobs.float()).double(),
        by_definition(student, logprobs), rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_ids_say_nothing_and_a_permuted_teacher_is_no_distance_away() -> None:
    student, _ = student_and_teacher()
    _, logprobs = teacher_support(student[:, torch.randperm(VOCABULARY)], VOCABULARY)
    torch.testing.assert_close(universal_logit_distance(student, logprobs), torch.zeros(len(student)).double())


def test_a_wider_support_is_never_nearer_and_the_whole_one_is_the_papers() -> None:
    student, teacher = student_and_teacher()
    distances = [
        universal_logit_distance(student, teacher_support(teacher, width)[1]) for width in range(1, VOCABULARY + 1)
    ]
    assert all((wider >= narrower - 1e-12).all() for narrower, wider in pairwise(distances))
    p, q = (side.softmax(1).sort(1, descending=True).values for side in (teacher, student))
    torch.testing.assert_close(distances[-1], (p - q).abs().sum(1))


def test_gradients_are_right_also_beside_positions_without_labels() -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, 7)
    logprobs[1, 3:] = -torch.inf
    logprobs[2] = -torch.inf
    targets = torch.arange(len(student))
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: mixed_loss(logits, targets, ids, logprobs, ULD).total, student)
    assert universal_logit_distance(student, logprobs)[2] == 0
    only_words = Loss(objective="uld", kl=1.0, cross_entropy=0.0)
    mixed_loss(student, targets, ids, logprobs, only_words).total.backward()
    assert student.grad is not None
    assert student.grad[2].abs().sum() == 0
    assert (student.grad[[0, 1]].abs().sum(1) > 0).all()


def test_text_is_cross_entropy_alone_and_still_looks_at_the_kl() -> None:
    assert (Loss(objective="text").kl, Loss(objective="text").cross_entropy) == (0.0, 1.0)
    assert Loss.model_validate(Loss(objective="text").model_dump()) == Loss(objective="text")
    with pytest.raises(ValidationError, match=r"objective is text, .* and kl 0.5: leave kl out"):
        Loss(objective="text", kl=0.5)
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, 7)
    targets = torch.arange(len(student))
    losses = mixed_loss(student, targets, ids, logprobs, Loss(objective="text"))
    torch.testing.assert_close(losses.total, torch.nn.functional.cross_entropy(student, targets))
    torch.testing.assert_close(losses.kl, tail_bucket_kl(student, ids, logprobs).mean())
