"""How often prompts are answered rightly: pass rates and pass@k, by source and by difficulty. Pure and column-wise."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
import pyarrow as pa

SOURCES_SHOWN = 20
_BUCKETS = (
    ("no sample passes", 0.0, 0.0),
    ("up to 1 in 4", 0.0, 0.25),
    ("up to 1 in 2", 0.25, 0.5),
    ("up to 3 in 4", 0.5, 0.75),
    ("more, not all", 0.75, 1.0),
    ("every sample passes", 1.0, 1.0),
)
"""Difficulty of a prompt by its own pass rate: (name, more than, at most), the two ends being exact."""


@dataclass(frozen=True)
class Rate:
    """What a group of prompts reaches; `at_k` is None where no prompt has k judged samples."""

    label: str
    prompts: int
    judged: int
    passed: int
    at_k: list[float | None]
    at_k_prompts: list[int]

    @property
    def rate(self) -> float:
        """Share of judged traces that passed."""
        return self.passed / self.judged


@dataclass(frozen=True)
class Rates:
    """Pass rate and pass@k of all judged prompts, and of groups of them."""

    ks: list[int]
    overall: Rate
    by_source: list[Rate]
    other_sources: int
    by_difficulty: list[Rate]


def pass_at_k(judged: np.ndarray, passed: np.ndarray, k: int) -> np.ndarray:
    """Chance that at least one of k samples of a prompt passes: float64 [prompts], NaN where fewer than k were judged.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) for c of n samples passed (Chen et al., Evaluating Large Language
    Models Trained on Code, 2021, equation 1), computed exactly once for every pair (n, c) that occurs.
    """
    pairs, inverse = np.unique(np.stack([judged, passed], axis=1), axis=0, return_inverse=True)
    values = [1.0 - comb(n - c, k) / comb(n, k) if n >= k else np.nan for n, c in pairs.tolist()]
    return np.array(values, np.float64)[inverse.reshape(-1)]


def ks_up_to(samples: int) -> list[int]:
    """1, 2, 4, 8, … up to the samples per prompt, which end the list where they are no power of two."""
    powers = [1 << power for power in range(samples.bit_length())]
    return powers if powers[-1] == samples else [*powers, samples]


def rates(prompts: pa.Table) -> Rates | None:
    """Rates of the prompts that were judged; None where none was.

    Args:
        prompts: a row per prompt: source (text), judged and passed (traces).
    """
    judged, passed = prompts["judged"].to_numpy(), prompts["passed"].to_numpy()
    there = judged > 0
    if not there.any():
        return None
    judged, passed = judged[there], passed[there]
    sources = prompts["source"].filter(pa.array(there)).combine_chunks().dictionary_encode()
    ks = ks_up_to(int(judged.max()))
    estimates = np.stack([pass_at_k(judged, passed, k) for k in ks])

    def group(label: str, members: np.ndarray) -> Rate:
        return _rate(label, judged[members], passed[members], estimates[:, members])

    codes = sources.indices.to_numpy()
    by_source = [group(name, codes == code) for code, name in enumerate(sources.dictionary.to_pylist())]
    by_source.sort(key=lambda rate: (-rate.prompts, rate.label))
    levels = [(name, difficulty) for name, difficulty in _difficulties(passed / judged) if difficulty.any()]
    return Rates(
        ks=ks,
        overall=group("all prompts", np.ones(len(judged), bool)),
        by_source=by_source[:SOURCES_SHOWN],
        other_sources=max(0, len(by_source) - SOURCES_SHOWN),
        by_difficulty=[group(name, members) for name, members in levels],
    )


def _difficulties(rate: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Per bucket its name and which prompts are in it; every prompt is in one."""
    found = []
    for name, above, most in _BUCKETS:
        exact = above == most
        inside = rate == most if exact else (rate > above) & (rate <= most) & (rate < 1.0)
        found.append((name, inside))
    return found


def _rate(label: str, judged: np.ndarray, passed: np.ndarray, estimates: np.ndarray) -> Rate:
    counts = np.isfinite(estimates).sum(axis=1)
    sums = np.nansum(estimates, axis=1)
    return Rate(
        label=label,
        prompts=len(judged),
        judged=int(judged.sum()),
        passed=int(passed.sum()),
        at_k=[float(total / count) if count else None for total, count in zip(sums, counts, strict=True)],
        at_k_prompts=counts.tolist(),
    )
