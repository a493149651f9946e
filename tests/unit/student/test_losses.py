from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distill_data.config import Loss
from distill_data.student.losses import bucket_entropy, cross_entropy, mixed_loss, tail_bucket_kl

VOCABULARY = 50


def teacher_support(logits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    top = logits.double().log_softmax(1).topk(width, dim=1)
    return top.indices, top.values


def dense_kl(logits: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """The definition, one position and one token at a time, in float64."""
    result = []
    for row, row_ids, row_logprobs in zip(logits.double(), ids, logprobs.double(), strict=True):
        student = row.softmax(0)
        real = row_logprobs > -math.inf
        p, q = row_logprobs[real].exp(), student[row_ids[real]]
        inside = torch.zeros(len(row), dtype=torch.bool)
        inside[row_ids[real]] = True
        tail_p, tail_q = max(0.0, 1 - p.sum().item()), student[~inside].sum().item()
        tail = tail_p * math.log(tail_p / tail_q) if tail_p > 0 and tail_q > 0 else 0.0
        result.append((p * (p / q).log()).sum().item() + tail)
    return torch.tensor(result, dtype=torch.float64)


def student_and_teacher(rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, rows, VOCABULARY, generator=generator, dtype=torch.float64) * 3
    return logits[0], logits[1]


@pytest.mark.parametrize("width", [1, 7, VOCABULARY - 1, VOCABULARY])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_kl_is_the_definition(width: int, dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, width)
    kl = tail_bucket_kl(student.to(dtype), ids, logprobs.to(dtype))
    assert kl.dtype == dtype
    torch.testing.assert_close(kl.double(), dense_kl(student, ids, logprobs), atol=tolerance, rtol=tolerance)


def test_full_support_is_the_whole_kl() -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, VOCABULARY)
    whole = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="none"
    )
    torch.testing.assert_close(tail_bucket_kl(student, ids, logprobs), whole.sum(1))


def test_padded_entries_change_nothing_even_where_token_0_is_real() -> None:
    student, teacher = student_and_teacher(rows=2)
    teacher[0, 0] = 9.0  # token 0 leads row 0 and is outside row 1's support
    teacher[1, 0] = -9.0
    ids, logprobs = teacher_support(teacher, 3)
    padded_ids = torch.cat([ids, torch.zeros(2, 4, dtype=torch.int64)], 1)
    padded_logprobs = torch.cat([logprobs, torch.full((2, 4), -torch.inf)], 1)
    torch.testing.assert_close(
        tail_bucket_kl(student, padded_ids, padded_logprobs), tail_bucket_kl(student, ids, logprobs)
    )


def test_padded_vocabulary_belongs_to_the_tail() -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, 5)
    wide = torch.cat([student, torch.zeros(len(student), 14, dtype=torch.float64)], 1)
    torch.testing.assert_close(tail_bucket_kl(wide, ids, logprobs), dense_kl(wide, ids, logprobs))
    never = torch.cat([student, torch.full((len(student), 14), -1e4, dtype=torch.float64)], 1)
    torch.testing.assert_close(tail_bucket_kl(never, ids, logprobs), tail_bucket_kl(student, ids, logprobs))


def test_labels_rounded_above_one_have_no_tail_and_no_negative_kl() -> None:
    logits = torch.tensor([[5.0, 4.0, -20.0, -20.0]])
    logprobs = logits.log_softmax(1)[:, :2] + 0.01
    assert logprobs.exp().sum() > 1
    kl = tail_bucket_kl(logits, torch.tensor([[0, 1]]), logprobs)
    assert 0 <= kl.item() < 0.02


def test_student_tail_keeps_its_digits_when_the_support_has_nearly_all_mass() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[0, 3] = 40.0  # 1 - p is 49 e^-40, which float32 cannot tell from 0 as 1 - support
    logprobs = torch.tensor([[math.log(0.9)]])
    expected = 0.9 * math.log(0.9) + 0.1 * (math.log(0.1) - math.log(49) + 40)
    assert tail_bucket_kl(logits, torch.tensor([[3]]), logprobs).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("width", [1, 4, 8])
def test_gradient(width: int) -> None:
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    ids, logprobs = teacher_support(torch.randn(3, 8, generator=generator), width)
    targets = torch.tensor([0, 3, 7])
    assert torch.autograd.gradcheck(lambda z: tail_bucket_kl(z, ids, logprobs), (student,))
    weights = Loss(kl=0.7, cross_entropy=0.3)
    assert torch.autograd.gradcheck(lambda z: mixed_loss(z, targets, ids, logprobs, weights).total, (student,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "logprobs",
    [
        pytest.param([[0.0, -math.inf]], id="tail 0"),
        pytest.param([[math.log(0.5), math.log(0.25)]], id="tail 0.25"),
        pytest.param([[math.log(0.6), math.log(0.42)]], id="over 1"),
    ],
)
@pytest.mark.parametrize("peak", [0.0, 300.0, -300.0])
def test_gradient_is_finite(logprobs: list[list[float]], peak: float, dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 5, dtype=dtype)
    logits[0, 1] = peak
    logits.requires_grad_()
    ids = torch.tensor([[1, 2]])
    losses = mixed_loss(logits, torch.tensor([4]), ids, torch.tensor(logprobs), Loss())
    losses.total.backward()
    assert logits.grad is not None
    assert math.isfinite(losses.total.item())
    assert torch.isfinite(logits.grad).all()


def test_whole_tiny_vocabulary_with_a_rounded_tail_is_finite() -> None:
    logits = torch.zeros(1, 2, requires_grad=True)
    logprobs = torch.tensor([[math.log(0.6), math.log(0.39)]])
    kl = tail_bucket_kl(logits, torch.tensor([[0, 1]]), logprobs)
    kl.sum().backward()
    assert logits.grad is not None
    assert kl.item() == pytest.approx(0.6 * math.log(1.2) + 0.39 * math.log(0.78), abs=1e-6)
    assert torch.isfinite(logits.grad).all()


def test_mixed_loss_is_the_weighted_mean() -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, 5)
    targets = torch.tensor([0, 1, 2, 3, 4, 49])
    losses = mixed_loss(student, targets, ids, logprobs, Loss(kl=2.0, cross_entropy=0.5))
    kl, ce = tail_bucket_kl(student, ids, logprobs).mean(), cross_entropy(student, targets).mean()
    torch.testing.assert_close(ce, -student.log_softmax(1)[torch.arange(6), targets].mean())
    torch.testing.assert_close(losses.total, 2.0 * kl + 0.5 * ce)
    torch.testing.assert_close(losses.kl, kl)
    torch.testing.assert_close(losses.cross_entropy, ce)
    torch.testing.assert_close(mixed_loss(student, targets, ids, logprobs, Loss(), tokens=12).kl, losses.kl / 2)


def test_bucket_entropy_bounds_the_entropy_from_below() -> None:
    _, teacher = student_and_teacher()
    full = teacher.log_softmax(1)
    entropy = -(full.exp() * full).sum(1)
    bounds = [bucket_entropy(teacher_support(teacher, width)[1]) for width in (1, 5, VOCABULARY)]
    assert (bounds[0] < bounds[1]).all() and (bounds[1] < entropy).all()
    torch.testing.assert_close(bounds[2], entropy, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(bucket_entropy(torch.tensor([[0.0, -math.inf]])), torch.zeros(1))
