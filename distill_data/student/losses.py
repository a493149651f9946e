"""The loss of a student: a divergence from the teacher's soft labels, mixed with cross-entropy.

Pure functions over label positions only (N positions, V student tokens, K the widest support). They compute
in float32, or in float64 where the logits are float64. `chunked_loss` gives the same mixed loss without holding
the logits of all positions. Every position has soft labels here: `blocks` refuses a trace with one that has none, or
gives it a hard label where the config says so.

With sparse labels a temperature other than 1 is exact only for `renormalised_kl`: of the teacher's tail only the
mass is known, and a tempered tail depends on how that mass is spread over its tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from distill_data.student import divergences
from distill_data.student.divergences import MASKED, StudentView, divergence, drawn_weights, teacher_mass, view
from distill_data.student_config import Loss, Objective


class MixedLoss(NamedTuple):
    """Nats per completion token of a batch; `kl` (the objective's divergence) and `cross_entropy` are unweighted
    and detached.
    """

    total: Tensor
    kl: Tensor
    cross_entropy: Tensor


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
    return divergences.forward_kl(_student(logits, support_ids, support_logprobs > -torch.inf), support_logprobs)


def reverse_kl(logits: Tensor, support_ids: Tensor, support_logprobs: Tensor) -> Tensor:
    """KL(student || teacher) per position with tail buckets; shapes as in `tail_bucket_kl`.

    An empty teacher's bucket would make it infinite, and rounded labels leave such: it counts as 1e-7, as in
    TRL. Labels that sum to s > 1 may give as little as -log s.
    """
    return divergences.reverse_kl(_student(logits, support_ids, support_logprobs > -torch.inf), support_logprobs)


def generalised_jsd(logits: Tensor, support_ids: Tensor, support_logprobs: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon divergence per position with tail buckets; shapes as in `tail_bucket_kl`.

    beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, teacher p, student q (Agarwal et al., 2024,
    "On-Policy Distillation of Language Models"). As beta goes to 0 or 1, this over beta or over 1 - beta becomes the
    forward or the reverse KL; beta = 0 and 1 give these, as in TRL's GKD trainer.
    """
    student = _student(logits, support_ids, support_logprobs > -torch.inf)
    return divergences.generalised_jsd(student, support_logprobs, beta)


def renormalised_kl(logits: Tensor, support_ids: Tensor, support_logprobs: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) per position, both normalised over the support; shapes as in `tail_bucket_kl`.

    Tokens outside the support get no gradient. Both sides' log-probabilities are divided by the temperature
    first, which is exact on a support; the result is multiplied by its square, so that gradients keep their size
    (Hinton et al., 2015).
    """
    student = _student(logits, support_ids, support_logprobs > -torch.inf)
    return divergences.renormalised_kl(student, support_logprobs, temperature)


def drawn_kl(logits: Tensor, support_ids: Tensor, support_logprobs: Tensor, draws: int) -> Tensor:
    """KL(teacher || student) per position, estimated from drawn tokens without bias where a cut support has one.

    The support is what `draws` systematic draws from the teacher's full distribution at temperature 1 met
    (`distill_data.soft_labels.select_drawn`); shapes as in `tail_bucket_kl`, and V at least the teacher's. Over the
    draws, value and gradient are those of the dense KL in expectation (Anshumann et al., 2025, "Sparse Logit
    Sampling", ACL, with independent draws). A single value may be negative.
    """
    real = support_logprobs > -torch.inf
    return divergences.drawn_kl(_student(logits, support_ids, real), support_logprobs, draws)


def universal_logit_distance(logits: Tensor, support_logprobs: Tensor) -> Tensor:
    """Distance [N] between sorted probabilities, for students with other tokens: `divergences.sorted_distance`.

    logits [N, V]; support_logprobs float [N, K], K <= V, likeliest first, -inf where there is no entry; a row without
    entries gives 0. The teacher's ids say nothing here.
    """
    ids, real = ranked_entries(logits, support_logprobs)
    return divergences.sorted_distance(_student(logits, ids, real), support_logprobs)


def cross_entropy(logits: Tensor, target_ids: Tensor) -> Tensor:
    """-log p(target) per position: logits [N, V], target_ids int64 [N]; returns [N], nats."""
    return functional.cross_entropy(precise(logits), target_ids, reduction="none")


def mixed_loss(
    logits: Tensor,
    target_ids: Tensor,
    support_ids: Tensor,
    support_logprobs: Tensor,
    weights: Loss,
    tokens: Tensor | int | None = None,
    draws: int | None = None,
) -> MixedLoss:
    """weights.kl x divergence + weights.cross_entropy x CE, means over `tokens` completion tokens.

    `tokens` is N when left out; with gradient accumulation it is the number of completion tokens in all
    batches of the step, so that every token weighs the same whichever batch it is in. `draws` are those of
    sampled soft labels. target_ids is int64 [N]; other shapes as in `tail_bucket_kl`.
    """
    student = _student(logits, *chosen_entries(weights.objective, logits, support_ids, support_logprobs))
    divisor = len(target_ids) if tokens is None else tokens
    kl = divergence(weights, student, support_logprobs, draws).sum() / divisor
    target_logits = precise(logits.gather(1, target_ids[:, None])[:, 0])
    ce = (student.log_total - target_logits).sum() / divisor
    return MixedLoss(weights.kl * kl + weights.cross_entropy * ce, kl.detach(), ce.detach())


def teacher_entropy(support_logprobs: Tensor, draws: int | None = None) -> Tensor:
    """Entropy [N] of the teacher's bucketed distribution, nats: a lower bound of its real entropy.

    With `draws` it is an estimate of the real one, right in expectation.
    """
    if draws is not None:
        log_p = support_logprobs.masked_fill(support_logprobs == -torch.inf, 0.0)
        return -(drawn_weights(support_logprobs, draws) * log_p).sum(1)
    p, tail = teacher_mass(support_logprobs)
    return -(torch.xlogy(p, p).sum(1) + torch.xlogy(tail, tail))


def entries(support_ids: Tensor, real: Tensor) -> Tensor:
    """The ids with those of absent entries replaced by column 0's: padding must not touch token 0."""
    return torch.where(real, support_ids, support_ids[:, :1])


def ranked_entries(logits: Tensor, support_logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """The student's likeliest tokens as the support, rank by rank: ids int64 [N, K] and which are there, bool [N, K].

    The likeliest one always is: a row needs one entry to be a distribution, also where the teacher says nothing.
    """
    real = support_logprobs > -torch.inf
    real[:, 0] = True
    return logits.topk(support_logprobs.shape[1], dim=1).indices, real


def chosen_entries(
    objective: Objective, logits: Tensor, support_ids: Tensor, support_logprobs: Tensor
) -> tuple[Tensor, Tensor]:
    """The tokens [N, K] that an objective looks at, and which of them are there: the teacher's, but for `uld`."""
    if objective == "uld":
        return ranked_entries(logits, support_logprobs)
    return support_ids, support_logprobs > -torch.inf


def precise(values: Tensor) -> Tensor:
    """As float32, or float64 where they are float64."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _student(logits: Tensor, support_ids: Tensor, real: Tensor) -> StudentView:
    ids = entries(support_ids, real)
    support = precise(logits.gather(1, ids))
    log_rest = torch.logsumexp(precise(logits).scatter(1, ids, MASKED), 1)
    return view(support, log_rest, real, logits.shape[1])
