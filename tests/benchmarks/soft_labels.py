"""What does a token's distribution cost on disk, and what does cutting and rounding it cost in gradients?

Formats are written as a corpus' `soft_labels/` file is, prompts included, and compared with full-vocabulary float32
distributions of transformers on real completions. Student: the teacher with noise in its weights. A gradient's error is
|h - g| / |g| with g the gradient of KL(teacher || student), h that of the loss with the tail as one bucket.

    .venv/bin/python -m tests.benchmarks.soft_labels
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_data.file_hash import cache_folder
from distill_data.records import SoftLabels
from distill_data.soft_labels import support_offsets
from tests.benchmarks.distributions import Distributions, Measured, measured
from tests.benchmarks.formats import FORMATS, SHARPER, Format, Kept
from tests.benchmarks.gradients import logit_errors, weight_errors
from tests.benchmarks.report import Result, parser, publish
from tests.benchmarks.workload import PACKAGED_MODEL

BYTES_GOAL, ERROR_GOAL = 62, 0.035
BATCHES = [256, 1024, 4096, 16384]  # tokens


def entropy_bound(labels: SoftLabels) -> float:
    """Bits per token / 8 of ids and values with an ideal coder of order 0; values given the one before them."""
    starts = support_offsets(labels.support_counts)[:-1]
    values = labels.support_logprobs.astype(np.float16).view(np.uint16).astype(np.int64)
    before = np.roll(values, 1)
    before[starts] = 0
    bits = _bits(labels.support_ids) + _bits(values + (before << 16)) - _bits(before) + _bits(labels.support_counts)
    return float(bits / 8 / len(starts))


def _bits(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(len(symbols) / counts)).sum())


def measure(found: Measured, choice: Format) -> tuple[dict[str, Any], Kept]:
    """Figures of one format, except those of weight gradients, and its labels of the plain distributions."""
    figures: dict[str, Any] = {}
    kept = {kind: choice.keep(found, kind) for kind in SHARPER}
    for kind, one in kept.items():
        seen: Distributions = getattr(found, kind)
        tokens = len(seen.kl)
        figures[kind] = {
            "bytes_per_token": {name: size / tokens for name, size in choice.file(found.traces, one).items()},
            "mean_support": float(one.labels.support_counts.mean()),
            **({} if one.stored is not None else {"entropy_bound_bytes": entropy_bound(one.labels)}),
            **({} if one.ranked is None else logit_errors(seen, one.ranked, one.renormalised)),
        }
    return figures, kept["plain"]


def result_of(figures: dict[str, dict[str, Any]], found: Measured, batches: list[int]) -> Result:
    """The table: a line per format."""
    rows = []
    for name, of in figures.items():
        plain, sharp = of["plain"], of["sharp"]
        weights = [f"{of['weight_gradient_error'][str(size)]:.4f}" for size in batches]
        figures_of_row = [
            f"{plain['bytes_per_token']['all']:.1f}", f"{plain['mean_support']:.1f}",
            _shown(plain, "gradient_error"), _shown(plain, "gradient_error_mean_of_positions"),
            _shown(plain, "kl_bias", "+.4f"), *weights,
            f"{sharp['bytes_per_token']['all']:.1f}", _shown(sharp, "gradient_error"),
            _shown(plain, "entropy_bound_bytes", ".1f"),
        ]  # fmt: skip
        rows.append([name, *figures_of_row])
    balanced, tokens = figures["balanced"]["plain"], len(found.plain.kl)
    return Result(
        name="soft_labels",
        title="Soft labels: bytes per completion token and error of gradients",
        headline=f"`balanced` takes {balanced['bytes_per_token']['all']:.1f} bytes per completion token in the "
        f"published file (goal {BYTES_GOAL}) at a relative gradient error of {balanced['gradient_error']:.4f} (goal "
        f"{ERROR_GOAL}), {balanced['gradient_error_mean_of_positions']:.4f} as the mean of positions.",
        header=[
            "format",
            "bytes/token",
            "kept",
            "gradient error",
            "mean of positions",
            "KL bias, nats",
            *(f"weights, {size:,}" for size in batches),
            "sharp: bytes/token",
            "gradient error",
            "entropy, bytes",
        ],
        rows=rows,
        figures={"tokens": tokens, "traces": len(found.traces), "kl": float(found.plain.kl.mean()), "formats": figures},
        note=f"{tokens:,} tokens in {len(found.traces)} completions of SmolLM2-135M-Instruct at temperature 0.7: sums, "
        "and questions answered in prose. Bytes are those of the whole file, prompts' ids included. The student is "
        f"the teacher with noise of 0.1 standard deviations in its weights, KL {found.plain.kl.mean():.3f} nats. "
        "Gradient error: of all positions' logits as one vector, then the mean of each position's own. "
        "KL bias: mean of the loss less KL(p ‖ q) over the whole vocabulary. Weights: error of the gradient of the "
        "output head's weights, of batches of so many tokens, shuffled (of 16,384 there is one). Draws are right only "
        "in expectation, so they have no error of a position. DistillKit: the two captures of its README, rebuilt from "
        "what its sources do (tests/benchmarks/distillkit.py says what is assumed), in the files that it writes, with "
        "each way that its KL loss takes missing tokens; `zero` is its default and renormalises the support, "
        "`symmetric_uniform` is the tail as one bucket. Sharp: logits of both divided by 0.5. Entropy: ids of order 0, "
        "values given the one before, counts; neither prompts nor sampled log-probabilities.",
    )


def _shown(figures: dict[str, Any], name: str, form: str = ".4f") -> str:
    return format(figures[name], form) if name in figures else "-"


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--tokens", type=int, default=20_480)
    options.add_argument("--model", default=PACKAGED_MODEL)
    options.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=BATCHES)
    options.add_argument("--cache", type=Path, default=cache_folder() / "benchmarks", help="keeps the completions")
    chosen = options.parse_args(arguments)
    found = measured(chosen.cache, chosen.tokens, chosen.model)
    measures = {choice.name: measure(found, choice) for choice in FORMATS}
    figures = {name: of for name, (of, _) in measures.items()}
    errors = weight_errors(found, [kept for _, kept in measures.values()], chosen.batches)
    for of, error in zip(figures.values(), errors, strict=True):
        of["weight_gradient_error"] = error
    publish(result_of(figures, found, chosen.batches), chosen.out)


if __name__ == "__main__":
    main()
