"""The mixed loss, a chunk of positions at a time: neither all logits nor their gradient are ever there in float32.

Such tensors of the whole vocabulary are what a loss costs in memory. Every objective needs of them only the logits of
the support and two logsumexps per position (`divergences`), so a chunk's gradient is known as soon as its logits are:
it is written over them, taken back through the output head, and the next chunk uses the same memory. The method is
that of Liger Kernel's fused linear cross-entropy (Hsu et al., 2024), here for all objectives.

N label positions, V student tokens, H hidden size, K the widest support.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from distill_data.student.divergences import MASKED, divergence, view
from distill_data.student.losses import MixedLoss, chosen_entries, entries, precise
from distill_data.student_config import Loss

ROWS = 512  # positions per chunk: with fewer, adding up the head's gradient costs more than computing it


class Labels(NamedTuple):
    """What the teacher says: target_ids int64 [N], support_ids int64 [N, K], support_logprobs float [N, K]."""

    target_ids: Tensor
    support_ids: Tensor
    support_logprobs: Tensor


def head_loss(
    hidden: Tensor,
    head: nn.Linear,
    labels: Labels,
    weights: Loss,
    tokens: Tensor | int | None = None,
    draws: int | None = None,
) -> MixedLoss:
    """`mixed_loss` of the logits head(hidden), hidden [N, H], which are never all there.

    The head computes in autocast's precision where that is on. All gradients are made here, and `backward` hands
    them out: it can run once.
    """
    job = _Job(labels, weights, draws, len(hidden) if tokens is None else tokens, torch.is_grad_enabled())
    return MixedLoss(*_HeadLoss.apply(hidden, head.weight, head.bias, job))


def logits_loss(
    logits: Tensor,
    mask: Tensor,
    labels: Labels,
    weights: Loss,
    tokens: Tensor | int | None = None,
    draws: int | None = None,
) -> MixedLoss:
    """`mixed_loss` of logits[mask], logits [B, L, V] and bool mask [B, L] with N true, without a copy of them.

    For models whose logits are more than a linear head of their hidden states. `backward` can run once.
    """
    tokens = len(labels.target_ids) if tokens is None else tokens
    job = _Job(labels, weights, draws, tokens, torch.is_grad_enabled())
    return MixedLoss(*_LogitsLoss.apply(logits, mask, job))


class _Source(Protocol):
    """Where a chunk's logits come from and their gradient goes to."""

    gradients: list[Tensor | None]

    def logits(self, part: slice) -> Tensor:
        """Precise logits [C, V] of some positions, free to be overwritten."""
        ...

    def take(self, part: slice, gradient: Tensor) -> None:
        """The gradient [C, V] of these logits."""
        ...


@dataclass(frozen=True)
class _Job:
    labels: Labels
    weights: Loss
    draws: int | None
    tokens: Tensor | int
    with_gradient: bool

    def run(self, source: _Source) -> tuple[Tensor, Tensor, Tensor]:
        """Total, divergence and cross-entropy, means over `tokens`; the source gets the gradient of the total."""
        terms = []
        for start in range(0, len(self.labels.target_ids), ROWS):
            part = slice(start, start + ROWS)
            logits = source.logits(part)
            terms.append(self._overwrite(logits, Labels(*(values[part] for values in self.labels))))
            if self.with_gradient:
                source.take(part, logits)
        kl, ce = torch.stack(terms).sum(0) / self.tokens
        return self.weights.kl * kl + self.weights.cross_entropy * ce, kl, ce

    def _overwrite(self, logits: Tensor, labels: Labels) -> Tensor:
        """Sums [2] of divergence and cross-entropy; logits [C, V] become the gradient of what these add to the total.

        By a logit outside the support that is d total / d log_rest x its share of the rest.
        """
        targets = labels.target_ids[:, None]
        chosen, real = chosen_entries(self.weights.objective, logits, labels.support_ids, labels.support_logprobs)
        ids = entries(chosen, real)
        support, target = logits.gather(1, ids), logits.gather(1, targets)[:, 0]
        top = logits.scatter_(1, ids, MASKED).amax(1, keepdim=True)
        mass = logits.sub_(top).exp_().sum(1)
        with torch.set_grad_enabled(self.with_gradient):
            inputs = [values.detach().requires_grad_() for values in (support, target, mass.log() + top[:, 0])]
            student = view(inputs[0], inputs[2], real, logits.shape[1])
            kl = divergence(self.weights, student, labels.support_logprobs, self.draws).sum()
            ce = (student.log_total - inputs[1]).sum()
            total = (self.weights.kl * kl + self.weights.cross_entropy * ce) / self.tokens
        if self.with_gradient:
            by_support, by_target, by_rest = torch.autograd.grad(total, inputs)
            logits.mul_((by_rest / mass)[:, None]).scatter_(1, ids, 0.0)
            logits.scatter_add_(1, ids, by_support).scatter_add_(1, targets, by_target[:, None])
        return torch.stack([kl.detach(), ce.detach()])


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, job: _Job) -> Any:
        source = _Head(hidden, weight, bias, [job.with_gradient and needed for needed in ctx.needs_input_grad[:3]])
        with torch.autocast(hidden.device.type, enabled=False):
            return _finish(ctx, source, job)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> Any:
        return *_scaled(ctx.saved_tensors, upstream), None


class _LogitsLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, mask: Tensor, job: _Job) -> Any:
        return _finish(ctx, _Given(logits, mask, job.with_gradient and ctx.needs_input_grad[0]), job)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> Any:
        return *_scaled(ctx.saved_tensors, upstream), None, None


def _finish(ctx: Any, source: _Source, job: _Job) -> tuple[Tensor, Tensor, Tensor]:
    terms = job.run(source)
    ctx.save_for_backward(*source.gradients)
    ctx.mark_non_differentiable(*terms[1:])
    return terms


def _scaled(gradients: Sequence[Tensor | None], upstream: Tensor) -> list[Tensor | None]:
    """In place: torch refuses a second backward pass, and there is no second tensor of the head's size."""
    return [gradient if gradient is None else gradient.mul_(upstream) for gradient in gradients]


class _Head:
    """Logits by a linear head; gradients of hidden [N, H], weight [V, H] and bias [V] as far as they are needed."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: Sequence[bool]):
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        self.hidden, self.weight, self.bias = hidden.to(dtype), weight.to(dtype), bias
        self.buffer = precise(weight[:0]).new_empty(min(ROWS, len(hidden)), len(weight))
        self.gradients = [
            torch.zeros_like(values) if values is not None and need else None
            for values, need in zip((hidden, weight, bias), needed, strict=True)
        ]

    def logits(self, part: slice) -> Tensor:
        rows = self.hidden[part]
        logits = self.buffer[: len(rows)]
        if self.weight.dtype == logits.dtype:
            torch.mm(rows, self.weight.t(), out=logits)
        else:
            logits.copy_(torch.mm(rows, self.weight.t()))
        return logits if self.bias is None else logits.add_(self.bias)

    def take(self, part: slice, gradient: Tensor) -> None:
        by_hidden, by_weight, by_bias = self.gradients
        if by_bias is not None:
            by_bias += gradient.sum(0)
        gradient = gradient.to(self.weight.dtype)
        if by_hidden is not None:
            by_hidden[part] = torch.mm(gradient, self.weight)
        if by_weight is not None and by_weight.dtype == gradient.dtype:
            by_weight.addmm_(gradient.t(), self.hidden[part])
        elif by_weight is not None:
            by_weight += torch.mm(gradient.t(), self.hidden[part])


class _Given:
    """Logits [B, L, V] that a model made, at the positions of a mask, and their gradient."""

    def __init__(self, logits: Tensor, mask: Tensor, needed: bool):
        self.rows = logits.flatten(0, -2)
        self.index = mask.flatten().nonzero()[:, 0]
        self.gradients: list[Tensor | None] = [torch.zeros_like(logits) if needed else None]

    def logits(self, part: slice) -> Tensor:
        return precise(self.rows[self.index[part]])

    def take(self, part: slice, gradient: Tensor) -> None:
        if (whole := self.gradients[0]) is not None:
            whole.flatten(0, -2).index_copy_(0, self.index[part], gradient.to(whole.dtype))
