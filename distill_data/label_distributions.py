"""From log-probabilities of labels' words to distributions over labels. Pure and vectorised, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def label_scores(token_logprobs: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Mean log-probability of each label's tokens: float64 [N, L].

    The mean, and not the sum, makes labels of one token and of several comparable (length normalisation, as
    `acc_norm` of lm-evaluation-harness does by bytes).

    Args:
        token_logprobs: float [N, T], the tokens of all labels, label after label.
        lengths: tokens of each label, T in all.
    """
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    return np.add.reduceat(token_logprobs.astype(np.float64), starts, axis=1) / np.asarray(lengths)


def label_probabilities(scores: np.ndarray, prior: np.ndarray | None = None) -> np.ndarray:
    """Softmax over labels, divided by a prior and normalised again where there is one: float64 [N, L].

    Dividing by what the teacher says about inputs without content is contextual calibration (Zhao et al., ICML 2021,
    "Calibrate Before Use", with W = diag(prior)^-1 and b = 0).

    Args:
        scores: float [N, L], log-probabilities of labels up to a constant.
        prior: float [L] or [N, L], positive.
    """
    shifted = scores if prior is None else scores - np.log(prior)
    weights = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def label_prior(scores: np.ndarray) -> np.ndarray:
    """What a teacher says of inputs without content, on average: float64 [L] of scores [C, L]."""
    return label_probabilities(scores).mean(axis=0)
