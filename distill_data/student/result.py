"""What an evaluation found; light to import, so that a report needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationResult:
    """Means over `tokens` completion tokens of `traces` held-out traces, in nats per token.

    `kl` is KL(teacher || student) with the tail as one bucket. `cross_entropy` is the student's on the tokens
    that the teacher sampled, and `perplexity` its exponential; `teacher_cross_entropy` is the teacher's on
    them, which a student matches but hardly beats. `top1_agreement` is the share of positions where the same
    token is likeliest to both. `teacher_entropy` is that of the bucketed distribution: a lower bound.
    `too_long` traces were left out because of max_length.
    """

    traces: int
    too_long: int
    tokens: int
    kl: float
    cross_entropy: float
    perplexity: float
    teacher_cross_entropy: float
    teacher_entropy: float
    top1_agreement: float
