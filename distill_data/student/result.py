"""What an evaluation found; light to import, so that a report needs no PyTorch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distill_data.student.calibration import expected_calibration_error


@dataclass(frozen=True)
class EvaluationResult:
    """Means over `tokens` completion tokens of `traces` held-out traces, in nats per token.

    `kl` is KL(teacher || student) with the tail as one bucket. `cross_entropy` is the student's on the tokens
    that the teacher sampled, and `perplexity` its exponential; `teacher_cross_entropy` is the teacher's on
    them, which a student matches but hardly beats. `top1_agreement` is the share of positions where the same
    token is likeliest to both. `teacher_entropy` is that of the bucketed distribution: a lower bound.
    `calibration_error` is the expected calibration error of the likeliest token's probability against whether it is the
    token that the teacher sampled. `too_long` traces were left out because of max_length.

    Of a student with other tokens than its teacher's, tokens are its own and what compares ids is None; `uld` is the
    distance between sorted probabilities, a mean over all its tokens, 0 where the teacher says nothing. One that
    learns from the text alone has neither.
    """

    traces: int
    too_long: int
    tokens: int
    cross_entropy: float
    perplexity: float
    kl: float | None = None
    teacher_cross_entropy: float | None = None
    teacher_entropy: float | None = None
    top1_agreement: float | None = None
    uld: float | None = None
    calibration_error: float | None = None

    @property
    def distance(self) -> float:
        """What training makes small: the KL, where ids differ `uld`, and without distributions the cross-entropy."""
        found = self.uld if self.kl is None else self.kl
        return self.cross_entropy if found is None else found


@dataclass(frozen=True)
class ClassifierResult:
    """What a classifier is on `traces` held-out texts; `too_long` ones were left out because of max_length.

    `kl` is KL(teacher || student) over labels, in nats, and `agreement` the share of texts where the same label is
    likeliest to both. `accuracy`, `log_loss` (nats) and `calibration_error` (expected, of the likeliest label, in 10
    bins) are against the right labels of the `judged` texts that have one; None where none has. `teacher_` ones are
    the teacher's own. Of the judged texts `both_right` are those that student and teacher label right.
    """

    traces: int
    too_long: int
    judged: int
    kl: float
    agreement: float
    accuracy: float | None = None
    log_loss: float | None = None
    calibration_error: float | None = None
    teacher_accuracy: float | None = None
    teacher_log_loss: float | None = None
    teacher_calibration_error: float | None = None
    both_right: int | None = None
    only_student_right: int | None = None
    only_teacher_right: int | None = None


@dataclass(frozen=True)
class TraceFigures:
    """What an evaluation found of every trace: of which an `EvaluationResult` holds the means.

    `rows` are those of the labels' table, int64 [N]; `tokens` completion tokens, int64 [N]; `sums` by figure over each
    trace's tokens, float64 [N]; `bins` as of `calibration.confidence_bins`, None where no likeliest token is known.
    """

    rows: np.ndarray
    tokens: np.ndarray
    sums: dict[str, np.ndarray]
    bins: np.ndarray | None
    too_long: int

    @property
    def result(self) -> EvaluationResult:
        """The means over tokens."""
        tokens = int(self.tokens.sum())
        means = {name: float(values.sum()) / tokens for name, values in self.sums.items()}
        return EvaluationResult(
            traces=len(self.rows),
            too_long=self.too_long,
            tokens=tokens,
            perplexity=math.exp(min(means["cross_entropy"], 700.0)),  # e^710 is no float any more
            calibration_error=None if self.bins is None else expected_calibration_error(self.bins),
            **means,
        )
