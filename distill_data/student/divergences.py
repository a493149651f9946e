"""How far a student is from its teacher, position by position, as functions of a few numbers per position.

Every objective is a function of the student's logits on the teacher's support and of two logsumexps; so its
gradient by a whole vocabulary's logits follows from a few derivatives (`chunked_loss`). N positions, V student
tokens, K the widest support; float32, or float64 where the logits are float64. Results are nats, [N].
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from distill_data.student_config import Loss

MASKED = -1e30  # finite: a row whose whole vocabulary is masked still has a gradient
LEAST_TAIL = 1e-7  # what the reverse KL takes for a teacher's empty tail, as TRL's tail bucket does


class StudentView(NamedTuple):
    """Logits of the support [N, K], the logsumexp [N] of the tokens outside it and of all, and V.

    Where the support has no entry, its logit may be anything finite.
    """

    support: Tensor
    log_rest: Tensor
    log_total: Tensor
    vocabulary: int


def view(support: Tensor, log_rest: Tensor, real: Tensor, vocabulary: int) -> StudentView:
    """What is to be known of the student; `real` is bool [N, K], the entries that are there."""
    log_support = torch.logsumexp(support.masked_fill(~real, MASKED), 1)
    return StudentView(support, log_rest, torch.logaddexp(log_support, log_rest), vocabulary)


def divergence(loss: Loss, student: StudentView, support_logprobs: Tensor, draws: int | None = None) -> Tensor:
    """The divergence that `loss.objective` names; support_logprobs [N, K] is -inf where there is no entry.

    With `draws` the support is what that many draws met, and the divergence the only one that they estimate. `text`
    has none: to be looked at, it is given the forward KL.
    """
    if draws is not None:
        return drawn_kl(student, support_logprobs, draws)
    if loss.objective == "renormalised_kl":
        return renormalised_kl(student, support_logprobs, loss.temperature)
    if loss.objective == "reverse_kl":
        return reverse_kl(student, support_logprobs)
    if loss.objective == "jsd":
        return generalised_jsd(student, support_logprobs, loss.beta)
    if loss.objective == "uld":
        return sorted_distance(student, support_logprobs)
    return forward_kl(student, support_logprobs)


def forward_kl(student: StudentView, support_logprobs: Tensor) -> Tensor:
    """KL(teacher || student) over the support and the tail bucket."""
    p, log_p, _, log_q = _buckets(student, support_logprobs)
    return (p * (log_p - log_q)).sum(1)


def reverse_kl(student: StudentView, support_logprobs: Tensor) -> Tensor:
    """KL(student || teacher) over the support and the tail bucket; a teacher's tail counts as at least LEAST_TAIL."""
    _, log_p, q, log_q = _buckets(student, support_logprobs, LEAST_TAIL)
    return (q * (log_q - log_p)).sum(1)


def generalised_jsd(student: StudentView, support_logprobs: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon divergence over the support and the tail bucket.

    beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q; beta 0 and 1 stand for the limits in
    direction, the forward and the reverse KL.
    """
    if beta == 0.0:
        return forward_kl(student, support_logprobs)
    if beta == 1.0:
        return reverse_kl(student, support_logprobs)
    p, log_p, q, log_q = _buckets(student, support_logprobs)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return (beta * p * (log_p - log_m) + (1.0 - beta) * q * (log_q - log_m)).sum(1)


def renormalised_kl(student: StudentView, support_logprobs: Tensor, temperature: float) -> Tensor:
    """temperature² KL(teacher || student), both tempered and normalised over the support alone."""
    real = support_logprobs > -torch.inf
    teacher = support_logprobs.to(student.support.dtype)
    log_p = (teacher / temperature).masked_fill(~real, MASKED).log_softmax(1)
    log_q = (student.support / temperature).masked_fill(~real, MASKED).log_softmax(1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)


def sorted_distance(student: StudentView, support_logprobs: Tensor) -> Tensor:
    """Sum of |p - q| over ranks, both sides sorted, and over what is left of both: universal logit distillation.

    Boizard et al., 2024, "Towards Cross-Tokenizer Distillation". `student.support` holds its likeliest tokens in
    descending order. With the teacher's tail as one bucket this is a lower bound of the sum over all ranks. 0 where
    the teacher says nothing (a row of -inf).
    """
    real = support_logprobs > -torch.inf
    p, tail = teacher_mass(support_logprobs.to(student.support.dtype))
    q = (student.support - student.log_total[:, None]).masked_fill(~real, MASKED).exp()
    rest = (student.log_rest - student.log_total).exp()
    return ((p - q).abs().sum(1) + (tail - rest).abs()).masked_fill(~real.any(1), 0.0)


def drawn_kl(student: StudentView, support_logprobs: Tensor, draws: int) -> Tensor:
    """KL(teacher || student) over the whole vocabulary, estimated from the tokens that systematic draws met.

    Value and gradient are right in expectation, whatever the student; a single value may be negative.
    """
    log_p = support_logprobs.to(student.support.dtype)
    log_q = student.support - student.log_total[:, None]
    return (drawn_weights(log_p, draws) * (log_p.masked_fill(log_p == -torch.inf, 0.0) - log_q)).sum(1)


def drawn_weights(support_logprobs: Tensor, draws: int) -> Tensor:
    """What stands for the probabilities of tokens that were drawn: max(p, 1 / draws), 0 where there is no entry.

    A token is drawn with probability min(1, draws x p), so this over all tokens is p in expectation (the estimator of
    Horvitz and Thompson, 1952).
    """
    return support_logprobs.exp().clamp_min(1.0 / draws).masked_fill(support_logprobs == -torch.inf, 0.0)


def teacher_mass(support_logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities [N, K] of the support, 0 where there is no entry, and the tail [N], at least 0."""
    p = support_logprobs.exp()
    return p, (1.0 - p.sum(1)).clamp_min(0.0)


class _Buckets(NamedTuple):
    """Teacher p and student q on the support and, last, the tail: [N, K + 1]; p = q = 0 where there is no entry.

    The logarithms are finite everywhere, so that 0 x log is 0, and its gradient too.
    """

    p: Tensor
    log_p: Tensor
    q: Tensor
    log_q: Tensor


def _buckets(student: StudentView, support_logprobs: Tensor, least_tail: float = 0.0) -> _Buckets:
    real = support_logprobs > -torch.inf
    teacher = support_logprobs.to(student.support.dtype)
    p, tail = teacher_mass(teacher)
    tail = tail.masked_fill(real.sum(1) >= student.vocabulary, 0.0)  # nothing is outside the support
    log_tail = tail.clamp_min(max(least_tail, torch.finfo(tail.dtype).tiny)).log()
    log_p = torch.cat([teacher.masked_fill(~real, 0.0), log_tail[:, None]], 1)
    log_q = torch.cat([student.support, student.log_rest[:, None]], 1) - student.log_total[:, None]
    absent = torch.cat([~real, torch.zeros_like(real[:, :1])], 1)
    q = log_q.masked_fill(absent, MASKED).exp()
    return _Buckets(torch.cat([p, tail[:, None]], 1), log_p, q, log_q)
