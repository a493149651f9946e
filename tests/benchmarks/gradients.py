"""Errors of gradients that cut and rounded soft labels make, with the tail as one bucket on both sides.

With support S, teacher p, its labels r with tail t = max(0, 1 - sum r), student q with Q outside S, the loss of
`distill_data.student.losses.tail_bucket_kl` has the gradient M q - r in S and (M - t / Q) q outside, M = sum r + t;
that of KL(p || q) is q - p. A renormalised support sums to 1 and has t = 0. Drawn tokens have weights w,
`drawn_weights`, and the gradient sum(w) q - w.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distill_data.records import SoftLabels
from distill_data.soft_labels import support_offsets
from distill_data.student.divergences import drawn_weights
from tests.benchmarks.distributions import Distributions, Measured
from tests.benchmarks.formats import Kept


def logit_errors(seen: Distributions, ranked: SoftLabels, renormalised: bool = False) -> dict[str, float]:
    """Relative error of the logits' gradient, over all positions and as the mean of each one's; bias of the loss.

    Args:
        seen: the distributions.
        ranked: their soft labels, with ranks in place of token ids.
        renormalised: whether the support sums to one, so that the loss knows no tail.
    """
    p, q = np.exp(seen.log_p.astype(np.float64)), np.exp(seen.log_q.astype(np.float64))
    rows = np.repeat(np.arange(len(p)), ranked.support_counts)
    kept, labels = np.zeros(p.shape, bool), np.zeros(p.shape)
    kept[rows, ranked.support_ids] = True
    labels[rows, ranked.support_ids] = np.exp(ranked.support_logprobs.astype(np.float64))
    tail = np.zeros(len(p)) if renormalised else np.maximum(1.0 - labels.sum(axis=1), 0.0)
    mass = labels.sum(axis=1) + tail
    _, rest_q, rest_pp, rest_pq, rest_qq = (seen.beyond + _sums(p, q, ~kept)).T
    scale = tail / rest_q - (mass - 1.0)
    inside = np.where(kept, p - labels + (mass[:, None] - 1.0) * q, 0.0)
    off = (inside**2).sum(axis=1) + rest_pp - 2 * scale * rest_pq + scale**2 * rest_qq
    whole = (seen.beyond + _sums(p, q, np.ones(p.shape, bool))) @ [0, 0, 1, -2, 1]
    log_labels = np.log(labels, where=kept, out=np.zeros(p.shape))
    log_tail = np.log(tail, where=tail > 0, out=np.zeros(len(tail)))
    loss = (labels * (log_labels - seen.log_q)).sum(axis=1) + tail * (log_tail - np.log(rest_q))
    return {
        "gradient_error": float(np.sqrt(off.sum() / whole.sum())),
        "gradient_error_mean_of_positions": float(np.sqrt(off[whole > 0] / whole[whole > 0]).mean()),
        "kl_bias": float((loss - seen.kl).mean()),
    }


def _sums(p: np.ndarray, q: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Sums of p, q, p², p q, q² over the tokens of every position that `where` names: [N, 5]."""
    return np.stack([np.where(where, one, 0.0).sum(axis=1) for one in (p, q, p * p, p * q, q * q)], axis=1)


def weight_errors(found: Measured, labels: list[Kept], batches: list[int]) -> list[dict[str, float]]:
    """Relative error of the gradient of the output head's weights, per labels, by tokens in a batch.

    Positions are shuffled first; the gradient of a batch is Σ g hᵀ with h the student's state before the head.
    """
    positions = np.random.default_rng(0).permutation(len(found.plain.kl))
    step = min(batches)
    sums = {size: torch.zeros(1 + len(labels), *found.heads[1].shape) for size in batches if size > step}
    squares = {size: torch.zeros(1 + len(labels), dtype=torch.float64) for size in batches}
    for start in range(0, max(batches), step):
        gradients = _weight_gradients(found, labels, positions[start : start + step])
        squares[step] += _squared(gradients)
        for size, total in sums.items():
            total += gradients
            if (start + step) % size == 0:
                squares[size] += _squared(total)
                total.zero_()
    return [
        {str(size): float((square[1 + number] / square[0]).sqrt()) for size, square in squares.items()}
        for number in range(len(labels))
    ]


def _weight_gradients(found: Measured, labels: list[Kept], chosen: np.ndarray) -> Tensor:
    """First that of the full distributions, then how far off that of each of the labels is."""
    p, q = (
        torch.softmax(torch.from_numpy(states[chosen]) @ torch.from_numpy(head).T, 1)
        for states, head in zip(found.states, found.heads, strict=True)
    )
    states, true = torch.from_numpy(found.states[1][chosen]), q - p
    off = (_logit_gradient(q, one, chosen) - true for one in labels)
    return torch.stack([gradient.T @ states for gradient in (true, *off)])


def _logit_gradient(q: Tensor, keep: Kept, chosen: np.ndarray) -> Tensor:
    """As the module's first lines say: [positions, V]."""
    labels = keep.labels
    offsets = support_offsets(labels.support_counts)
    flat = np.concatenate([np.arange(offsets[one], offsets[one + 1]) for one in chosen])
    rows = torch.from_numpy(np.repeat(np.arange(len(chosen)), labels.support_counts[chosen]))
    ids = torch.from_numpy(labels.support_ids[flat]).long()
    kept = torch.zeros_like(q)
    logprobs = torch.from_numpy(labels.support_logprobs[flat].astype(np.float32))
    kept[rows, ids] = logprobs.exp() if keep.draws is None else drawn_weights(logprobs, keep.draws)
    if keep.draws is not None or keep.renormalised:
        return kept.sum(1, keepdim=True) * q - kept
    inside = torch.zeros(q.shape, dtype=torch.bool)
    inside[rows, ids] = True
    tail = (1.0 - kept.sum(1, keepdim=True)).clamp_min(0.0)
    rest = q.masked_fill(inside, 0.0)
    return (kept.sum(1, keepdim=True) + tail) * q - kept - rest * (tail / rest.sum(1, keepdim=True))


def _squared(gradients: Tensor) -> Tensor:
    return torch.stack([gradient.double().square().sum() for gradient in gradients])
