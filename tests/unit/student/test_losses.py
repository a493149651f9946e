from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from distill_data.student.losses import (
    cross_entropy,
    drawn_kl,
    generalised_jsd,
    mixed_loss,
    renormalised_kl,
    reverse_kl,
    tail_bucket_kl,
    teacher_entropy,
)
from distill_data.student_config import Loss
from distill_data.teachers.vllm_draws import systematic_draws

VOCABULARY = 50
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "forward": tail_bucket_kl,
    "reverse": reverse_kl,
    "jsd 0.1": partial(generalised_jsd, beta=0.1),
    "jsd 0.5": partial(generalised_jsd, beta=0.5),
    "jsd 0.9": partial(generalised_jsd, beta=0.9),
    "renormalised": renormalised_kl,
    "renormalised, cold": partial(renormalised_kl, temperature=0.5),
    "renormalised, hot": partial(renormalised_kl, temperature=3.0),
}
CONFIGS = [
    Loss(kl=0.7, cross_entropy=0.3),
    Loss(objective="reverse_kl", kl=0.7, cross_entropy=0.3),
    Loss(objective="jsd", beta=0.1, kl=0.7, cross_entropy=0.3),
    Loss(objective="renormalised_kl", temperature=2.0, kl=0.7, cross_entropy=0.3),
]
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
every_config = pytest.mark.parametrize("weights", CONFIGS, ids=lambda weights: weights.objective)


def teacher_support(logits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    top = logits.double().log_softmax(1).topk(width, dim=1)
    return top.indices, top.values


def distance(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q), where nothing of p is impossible in q."""
    there = p > 0
    return (p[there] * (p[there] / q[there]).log()).sum()


def tempered(p: Tensor, temperature: float) -> Tensor:
    powers = p ** (1 / temperature)
    return powers / powers.sum()


def jensen_shannon(p: Tensor, q: Tensor, beta: float) -> Tensor:
    middle = beta * p + (1 - beta) * q
    return beta * distance(p, middle) + (1 - beta) * distance(q, middle)


DEFINITIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward": distance,
    "reverse": lambda p, q: distance(q, p),
    **{f"jsd {beta}": partial(jensen_shannon, beta=beta) for beta in (0.1, 0.5, 0.9)},
    **{
        name: lambda p, q, t=t: t**2 * distance(tempered(p, t), tempered(q, t))
        for name, t in (("renormalised", 1.0), ("renormalised, cold", 0.5), ("renormalised, hot", 3.0))
    },
}


def by_definition(name: str, logits: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """One position and one token at a time, in float64, from whole distributions."""
    result = []
    for row, row_ids, row_logprobs in zip(logits.double(), ids, logprobs.double(), strict=True):
        student = row.softmax(0)
        real = row_logprobs > -math.inf
        p, q = row_logprobs[real].exp(), student[row_ids[real]]
        inside = torch.zeros(len(row), dtype=torch.bool)
        inside[row_ids[real]] = True
        if not name.startswith("renormalised") and not inside.all():
            p = torch.cat([p, (1 - p.sum()).clamp_min(0)[None]])
            q = torch.cat([q, student[~inside].sum()[None]])
        result.append(DEFINITIONS[name](p, q))
    return torch.stack(result)


def dense_kl(logits: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    return by_definition("forward", logits, ids, logprobs)


def student_and_teacher(rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, rows, VOCABULARY, generator=generator, dtype=torch.float64) * 3
    return logits[0], logits[1]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("width", [1, 7, 30, VOCABULARY])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_a_loss_is_its_definition(name: str, width: int, dtype: torch.dtype, tolerance: float) -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, width)
    ours = LOSSES[name](student.to(dtype), ids, logprobs.to(dtype))
    assert ours.dtype == dtype
    expected = by_definition(name, student, ids, logprobs)
    assert width == 1 or (expected > 1e-3).all()
    torch.testing.assert_close(ours.double(), expected, atol=tolerance, rtol=tolerance)


@every_loss
def test_no_distance_from_itself(loss: Callable[..., Tensor]) -> None:
    student, _ = student_and_teacher()
    for width in (1, 7, VOCABULARY):
        ids, logprobs = teacher_support(student, width)
        torch.testing.assert_close(loss(student, ids, logprobs), torch.zeros(6, dtype=torch.float64))


@every_loss
def test_bfloat16_logits_are_computed_with_in_float32(loss: Callable[..., Tensor]) -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, 7)
    rounded = student.bfloat16()
    ours = loss(rounded, ids, logprobs.float())
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, loss(rounded.float(), ids, logprobs.float()))


def test_an_empty_tail_of_the_teacher_counts_a_little_in_the_reverse_kl() -> None:
    logits = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    logprobs = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    kl = reverse_kl(logits, torch.tensor([[1, 2]]), logprobs)
    assert kl.item() == pytest.approx(2 * 0.25 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-7))
    whole = torch.cat([logprobs, torch.full((1, 2), -torch.inf)], 1)
    assert reverse_kl(logits, torch.tensor([[1, 2, 0, 0]]), whole).item() == pytest.approx(kl.item())
    two = torch.zeros(1, 2, dtype=torch.float64)
    assert reverse_kl(two, torch.tensor([[0, 1]]), logprobs).item() == pytest.approx(0.0)


def test_jsd_has_both_kls_as_limits() -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, 7)
    jsd = partial(generalised_jsd, student, ids, logprobs)
    forward, reverse = tail_bucket_kl(student, ids, logprobs), reverse_kl(student, ids, logprobs)
    torch.testing.assert_close(jsd(beta=1e-7) / 1e-7, forward, rtol=1e-3, atol=0)
    torch.testing.assert_close(jsd(beta=1 - 1e-7) / 1e-7, reverse, rtol=1e-3, atol=0)
    torch.testing.assert_close(jsd(beta=0.0), forward)
    torch.testing.assert_close(jsd(beta=1.0), reverse)


def test_full_support_is_the_whole_kl() -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, VOCABULARY)
    whole = torch.nn.functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="none"
    )
    torch.testing.assert_close(tail_bucket_kl(student, ids, logprobs), whole.sum(1))


@every_loss
def test_padded_entries_change_nothing_even_where_token_0_is_real(loss: Callable[..., Tensor]) -> None:
    student, teacher = student_and_teacher(rows=2)
    teacher[0, 0] = 9.0  # token 0 leads row 0 and is outside row 1's support
    teacher[1, 0] = -9.0
    ids, logprobs = teacher_support(teacher, 3)
    padded_ids = torch.cat([ids, torch.zeros(2, 4, dtype=torch.int64)], 1)
    padded_logprobs = torch.cat([logprobs, torch.full((2, 4), -torch.inf)], 1)
    student.requires_grad_()
    padded, bare = loss(student, padded_ids, padded_logprobs), loss(student, ids, logprobs)
    torch.testing.assert_close(padded, bare)
    gradients = [torch.autograd.grad(values.sum(), student)[0] for values in (padded, bare)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", LOSSES)
def test_padded_vocabulary_belongs_to_the_tail(name: str) -> None:
    student, teacher = student_and_teacher()
    loss = LOSSES[name]
    ids, logprobs = teacher_support(teacher, 5)
    wide = torch.cat([student, torch.zeros(len(student), 14, dtype=torch.float64)], 1)
    torch.testing.assert_close(loss(wide, ids, logprobs), by_definition(name, wide, ids, logprobs))
    never = torch.cat([student, torch.full((len(student), 14), -1e4, dtype=torch.float64)], 1)
    torch.testing.assert_close(loss(never, ids, logprobs), loss(student, ids, logprobs))


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


def small_problem(width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(3, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    return student, *teacher_support(torch.randn(3, 8, generator=generator), width)


@every_loss
@pytest.mark.parametrize("width", [1, 4, 8])
def test_gradient(loss: Callable[..., Tensor], width: int) -> None:
    student, ids, logprobs = small_problem(width)
    assert torch.autograd.gradcheck(lambda z: loss(z, ids, logprobs), (student,))


@every_config
def test_gradient_of_the_mixed_loss(weights: Loss) -> None:
    student, ids, logprobs = small_problem(4)
    targets = torch.tensor([0, 3, 7])
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
@pytest.mark.parametrize("peak", [0.0, 300.0, -300.0, 3e4, -3e4])
@every_config
def test_gradient_is_finite(weights: Loss, logprobs: list[list[float]], peak: float, dtype: torch.dtype) -> None:
    logits = torch.zeros(1, 5, dtype=dtype)
    logits[0, 1] = peak
    logits.requires_grad_()
    ids = torch.tensor([[1, 2]])
    losses = mixed_loss(logits, torch.tensor([4]), ids, torch.tensor(logprobs), weights)
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


def test_mixed_loss_takes_the_objective_of_the_config() -> None:
    student, teacher = student_and_teacher()
    ids, logprobs = teacher_support(teacher, 5)
    targets = torch.zeros(6, dtype=torch.int64)
    expected = {
        "forward": Loss(),
        "reverse": Loss(objective="reverse_kl"),
        "jsd 0.5": Loss(objective="jsd"),
        "jsd 0.1": Loss(objective="jsd", beta=0.1),
        "renormalised": Loss(objective="renormalised_kl"),
        "renormalised, hot": Loss(objective="renormalised_kl", temperature=3.0),
    }
    for name, weights in expected.items():
        losses = mixed_loss(student, targets, ids, logprobs, weights)
        torch.testing.assert_close(losses.kl, LOSSES[name](student, ids, logprobs).mean())


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
    bounds = [teacher_entropy(teacher_support(teacher, width)[1]) for width in (1, 5, VOCABULARY)]
    assert (bounds[0] < bounds[1]).all() and (bounds[1] < entropy).all()
    torch.testing.assert_close(bounds[2], entropy, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(teacher_entropy(torch.tensor([[0.0, -math.inf]])), torch.zeros(1))


def drawn_labels(teacher: Tensor, draws: int, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Support ids and log-probabilities [M, V] of one teacher's logits [1, V] at M offsets, likeliest first."""
    logprobs, ids = teacher.log_softmax(1).expand(len(offsets), -1).sort(1, descending=True)
    met = torch.zeros(logprobs.shape, dtype=torch.bool)
    met.scatter_(1, systematic_draws(logprobs, draws, offsets[:, None]), True)
    order = met.int().argsort(dim=1, descending=True, stable=True)  # what is there to the front
    return ids.gather(1, order), logprobs.masked_fill(~met, -math.inf).gather(1, order)


def mean_over_offsets(draws: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean value and gradient of the estimate over 20,000 equal steps of the offset, and the dense ones."""
    student, teacher = (logits[:1] for logits in student_and_teacher())
    offsets = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    logits = student.expand(len(offsets), -1).clone().requires_grad_()
    values = drawn_kl(logits, *drawn_labels(teacher, draws, offsets), draws)
    (gradients,) = torch.autograd.grad(values.sum(), logits)
    log_p, log_q = teacher.log_softmax(1), student.log_softmax(1)
    return values.mean(), gradients.mean(0), (log_p.exp() * (log_p - log_q)).sum(), (log_q.exp() - log_p.exp())[0]


@pytest.mark.parametrize("draws", [1, 10, 200])
def test_drawn_labels_are_unbiased_in_value_and_gradient(draws: int) -> None:
    """A token is met at offsets that make up one or two intervals: their ends are off by half a step each."""
    value, gradient, dense_value, dense_gradient = mean_over_offsets(draws)
    torch.testing.assert_close(gradient, dense_gradient, rtol=0, atol=4 / 20_000)
    torch.testing.assert_close(value, dense_value, rtol=0, atol=VOCABULARY * 4 / 20_000)


def test_a_cut_support_of_as_many_tokens_is_biased() -> None:
    student, teacher = (logits[:1] for logits in student_and_teacher())
    student.requires_grad_()
    (cut,) = torch.autograd.grad(tail_bucket_kl(student, *teacher_support(teacher, 10)).sum(), student)
    dense = student.detach().softmax(1) - teacher.softmax(1)
    assert (cut - dense).abs().max() > 10 * 4 / 20_000


def test_one_set_of_draws_is_the_sum_over_its_tokens() -> None:
    student = student_and_teacher()[0][:2]
    ids = torch.tensor([[3, 5, 0]]).expand(2, -1)  # the last is padding
    logprobs = torch.tensor([[0.75, 0.01, 0.0]], dtype=torch.float64).log().expand(2, -1)
    log_q = student.log_softmax(1)
    expected = 0.75 * (math.log(0.75) - log_q[:, 3]) + 0.1 * (math.log(0.01) - log_q[:, 5])  # max(p, 1 / draws)
    torch.testing.assert_close(drawn_kl(student, ids, logprobs, 10), expected)
    small = student[:, :8].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: drawn_kl(z, ids, logprobs, 10), (small,))


def test_the_entropy_of_drawn_labels_is_right_in_expectation() -> None:
    teacher = student_and_teacher()[1][:1]
    offsets = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    found = teacher_entropy(drawn_labels(teacher, 10, offsets)[1], 10).mean()
    log_p = teacher.log_softmax(1)
    torch.testing.assert_close(found, -(log_p.exp() * log_p).sum(), rtol=0, atol=VOCABULARY * 4 / 20_000)


def test_mixed_loss_of_drawn_labels() -> None:
    student, teacher = (logits[:1] for logits in student_and_teacher())
    ids, logprobs = drawn_labels(teacher, 10, torch.tensor([0.3], dtype=torch.float64))
    weights = Loss(kl=0.7, cross_entropy=0.3)
    losses = mixed_loss(student, torch.tensor([4]), ids, logprobs, weights, draws=10)
    torch.testing.assert_close(losses.kl, drawn_kl(student, ids, logprobs, 10).mean())
    torch.testing.assert_close(losses.total, 0.7 * losses.kl + 0.3 * losses.cross_entropy)
