"""The loss of a student: forward KL on the teacher's support with the tail as one bucket, and cross-entropy.

Pure functions over label positions only (N positions, V student tokens, K the widest support). They compute
in float32, or in float64 where the logits are float64.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distill_data.config import Loss

_MASKED = -1e30  # finite: a row whose whole vocabulary is masked still has a gradient


class MixedLoss(NamedTuple):
    """Nats per completion token of a batch; `kl` and `cross_entropy` are unweighted and detached."""

    total: Tensor
    kl: Tensor
    cross_entropy: Tensor


class _Student(NamedTuple):
    """Logits of the support [N, K], and the logsumexp [N] of the tokens outside it and of all tokens."""

    support: Tensor
    log_rest: Tensor
    log_total: Tensor


def tail_bucket_kl(logits: Tensor, support_ids: Tensor, support_logprobs: Tensor) -> Tensor:
    """KL(teacher || student) per position, with everything outside the support as one bucket on both sides.

    The bucket ("ghost token") is what Megatron-LM and TRL (`loss_add_tail`) use; renormalising the support
    instead would teach the student that nothing else ever comes. The student may have more tokens than the
    teacher (a padded vocabulary): they belong to its bucket. The student's bucket is summed from its own
    logits, not as 1 - support, which in float32 has no digits left once the support holds almost all mass.

    Args:
        logits: [N, V], any float type, finite.
        support_ids: int64 [N, K], likeliest first, column 0 always real.
        support_logprobs: float [N, K], normalised over the full vocabulary, -inf where there is no entry.

    Returns:
        [N], nats. Rounded labels may sum to slightly over 1; the teacher's bucket is then 0 and the result is
        still at least 0. Where the support is the whole vocabulary the bucket is empty and left out.
    """
    return _kl(_student(logits, support_ids, support_logprobs), logits.shape[1], support_logprobs)


def cross_entropy(logits: Tensor, target_ids: Tensor) -> Tensor:
    """-log p(target) per position: logits [N, V], target_ids int64 [N]; returns [N], nats."""
    return functional.cross_entropy(_precise(logits), target_ids, reduction="none")


def mixed_loss(
    logits: Tensor,
    target_ids: Tensor,
    support_ids: Tensor,
    support_logprobs: Tensor,
    weights: Loss,
    tokens: Tensor | int | None = None,
) -> MixedLoss:
    """weights.kl x KL + weights.cross_entropy x CE, means over `tokens` completion tokens.

    `tokens` is N when left out; with gradient accumulation it is the number of completion tokens in all
    batches of the step, so that every token weighs the same whichever batch it is in. target_ids is
    int64 [N]; other shapes as in `tail_bucket_kl`.
    """
    student = _student(logits, support_ids, support_logprobs)
    divisor = len(target_ids) if tokens is None else tokens
    kl = _kl(student, logits.shape[1], support_logprobs).sum() / divisor
    target_logits = _precise(logits.gather(1, target_ids[:, None])[:, 0])
    ce = (student.log_total - target_logits).sum() / divisor
    return MixedLoss(weights.kl * kl + weights.cross_entropy * ce, kl.detach(), ce.detach())


def bucket_entropy(support_logprobs: Tensor) -> Tensor:
    """Entropy [N] of the teacher's bucketed distribution, nats: a lower bound of its real entropy."""
    p, tail = _teacher_mass(support_logprobs)
    return -(torch.xlogy(p, p).sum(1) + torch.xlogy(tail, tail))


def _kl(student: _Student, vocabulary: int, support_logprobs: Tensor) -> Tensor:
    real = support_logprobs > -torch.inf
    log_p = support_logprobs.to(student.support.dtype).masked_fill(~real, 0.0)
    p, tail = _teacher_mass(support_logprobs.to(student.support.dtype))
    tail = tail.masked_fill(real.sum(1) >= vocabulary, 0.0)
    log_q = student.support - student.log_total[:, None]
    log_tail_q = student.log_rest - student.log_total
    return (p * (log_p - log_q)).sum(1) + torch.xlogy(tail, tail) - tail * log_tail_q


def _student(logits: Tensor, support_ids: Tensor, support_logprobs: Tensor) -> _Student:
    real = support_logprobs > -torch.inf
    ids = torch.where(real, support_ids, support_ids[:, :1])  # padding must not touch token 0
    support = _precise(logits.gather(1, ids))
    log_support = torch.logsumexp(support.masked_fill(~real, _MASKED), 1)
    log_rest = torch.logsumexp(_precise(logits).scatter(1, ids, _MASKED), 1)
    return _Student(support, log_rest, torch.logaddexp(log_support, log_rest))


def _teacher_mass(support_logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities [N, K] of the support, 0 where there is no entry, and the tail [N], at least 0."""
    p = support_logprobs.exp()
    return p, (1.0 - p.sum(1)).clamp_min(0.0)


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
