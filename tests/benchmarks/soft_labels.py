"""What does a token's distribution cost on disk, and what does cutting and rounding it cost in gradients?

Formats are written as a corpus' `soft_labels/` file is, prompts included, and compared with full-vocabulary float32
distributions of transformers on real completions. Student: the teacher with noise in its weights. A gradient's error is
|h - g| / |g| with g the gradient of KL(teacher || student), h that of the loss with the tail as one bucket.

    .venv/bin/python -m tests.benchmarks.soft_labels
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.file_hash import cache_folder
from distill_data.parquet import write_options
from distill_data.records import SOFT_LABELS_SCHEMA, SoftLabels
from distill_data.soft_labels import select_support, support_offsets
from distill_data.teacher_config import SoftLabelSelection
from tests.benchmarks.distributions import Distributions, Measured, measured
from tests.benchmarks.gradients import logit_errors, weight_errors
from tests.benchmarks.report import Result, parser, publish
from tests.benchmarks.workload import PACKAGED_MODEL

BYTES_GOAL, ERROR_GOAL = 62, 0.035
BATCHES = [256, 4096, 16384]  # tokens


@dataclass(frozen=True)
class Format:
    """One way to keep distributions; `nested` is a list of lists in float32, as pyarrow writes it by itself."""

    name: str
    selection: SoftLabelSelection
    nested: bool = False


FORMATS = [
    Format("compact", SoftLabelSelection(preset="compact")),
    Format("balanced", SoftLabelSelection(preset="balanced")),
    Format("faithful", SoftLabelSelection(preset="faithful")),
    Format("top 32, flat", SoftLabelSelection(min_prob=0.0, max_support=32)),
    Format(
        "top 32, nested lists of float32", SoftLabelSelection(min_prob=0.0, max_support=32, rounding="float16"), True
    ),
]


def ranked_labels(seen: Distributions, selection: SoftLabelSelection) -> SoftLabels:
    """Soft labels whose ids are ranks, 0 for the likeliest."""
    ranks = np.broadcast_to(np.arange(seen.log_p.shape[1], dtype=np.int32), seen.log_p.shape)
    return select_support(ranks, seen.log_p, seen.sampled, selection)


def with_ids(labels: SoftLabels, seen: Distributions) -> SoftLabels:
    """The same with token ids."""
    rows = np.repeat(np.arange(len(labels.support_counts)), labels.support_counts)
    return replace(labels, support_ids=seen.top_ids[rows, labels.support_ids])


def flat_file(traces: pa.Table, labels: SoftLabels) -> pa.Table:
    """Rows of SOFT_LABELS_SCHEMA."""
    completions = traces["completion_token_ids"].combine_chunks()
    tokens = completions.offsets.to_numpy()
    support = support_offsets(labels.support_counts)[tokens]
    columns = {
        "trace_id": pa.array([f"{7919 * row:08x}-{104729 * row:032x}-0" for row in range(len(traces))]),
        "prompt_token_ids": traces["prompt_token_ids"],
        "completion_token_ids": completions,
        "sampled_logprobs": _lists(tokens, labels.sampled_logprobs),
        "support_counts": _lists(tokens, labels.support_counts),
        "support_ids": _lists(support, labels.support_ids),
        "support_logprobs": _lists(support, labels.support_logprobs),
    }
    return pa.table(columns, schema=SOFT_LABELS_SCHEMA)


def nested_file(traces: pa.Table, labels: SoftLabels) -> pa.Table:
    """Lists of lists: per position ids as int32 and log-probabilities as float32."""
    flat = flat_file(traces, labels)
    inner, outer = support_offsets(labels.support_counts), traces["completion_token_ids"].combine_chunks().offsets
    values = {"support_ids": labels.support_ids, "support_logprobs": labels.support_logprobs.astype(np.float32)}
    for name, array in values.items():
        nested = pa.ListArray.from_arrays(outer, _lists(inner, array))
        flat = flat.set_column(flat.schema.get_field_index(name), name, nested)
    return flat.drop_columns(["support_counts"])


def _lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def bytes_by_column(table: pa.Table, options: dict[str, Any]) -> dict[str, int]:
    """Bytes of a file with this table: of every column, and of `all` with its metadata."""
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, **options) as writer:
        writer.write_table(table)
    found: dict[str, int] = {"all": file.tell()}
    group = pq.read_metadata(file).row_group(0)
    for column in (group.column(number) for number in range(group.num_columns)):
        found[column.path_in_schema.split(".")[0]] = column.total_compressed_size
    return found


def entropy_bound(labels: SoftLabels) -> float:
    """Bits per token / 8 of ids and values with an ideal coder of order 0; values given the one before them."""
    starts = support_offsets(labels.support_counts)[:-1]
    values = labels.support_logprobs.view(np.uint16).astype(np.int64)
    before = np.roll(values, 1)
    before[starts] = 0
    bits = _bits(labels.support_ids) + _bits(values + (before << 16)) - _bits(before) + _bits(labels.support_counts)
    return float(bits / 8 / len(starts))


def _bits(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(len(symbols) / counts)).sum())


def measure(found: Measured, choice: Format) -> dict[str, Any]:
    """Figures of one format, except those of weight gradients."""
    figures: dict[str, Any] = {}
    for kind, seen in {"plain": found.plain, "sharp": found.sharp}.items():
        ranked = ranked_labels(seen, choice.selection)
        labels = with_ids(ranked, seen)
        table = nested_file(found.traces, labels) if choice.nested else flat_file(found.traces, labels)
        spent = bytes_by_column(table, {} if choice.nested else write_options(table.schema))
        tokens = len(seen.kl)
        figures[kind] = {
            "bytes_per_token": {name: size / tokens for name, size in spent.items()},
            "mean_support": float(labels.support_counts.mean()),
            "entropy_bound_bytes": entropy_bound(labels),
            **logit_errors(seen, ranked),
        }
    return figures


def result_of(figures: dict[str, dict[str, Any]], found: Measured, batches: list[int]) -> Result:
    """The table: a line per format."""
    rows = []
    for name, of in figures.items():
        plain, sharp = of["plain"], of["sharp"]
        weights = [f"{of['weight_gradient_error'][str(size)]:.4f}" for size in batches]
        figures_of_row = [
            f"{plain['bytes_per_token']['all']:.1f}", f"{plain['mean_support']:.1f}",
            f"{plain['gradient_error']:.4f}", f"{plain['gradient_error_mean_of_positions']:.4f}",
            f"{plain['kl_bias']:+.4f}", *weights,
            f"{sharp['bytes_per_token']['all']:.1f}", f"{sharp['gradient_error']:.4f}",
            f"{plain['entropy_bound_bytes']:.1f}",
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
        "output head's weights, of batches of so many tokens. Sharp: logits of both divided by 0.5. Entropy: ids of "
        "order 0, values given the one before, counts; neither prompts nor sampled log-probabilities.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--tokens", type=int, default=20_480)
    options.add_argument("--model", default=PACKAGED_MODEL)
    options.add_argument("--batches", type=lambda text: [int(size) for size in text.split(",")], default=BATCHES)
    options.add_argument("--cache", type=Path, default=cache_folder() / "benchmarks", help="keeps the completions")
    chosen = options.parse_args(arguments)
    found = measured(chosen.cache, chosen.tokens, chosen.model)
    figures = {choice.name: measure(found, choice) for choice in FORMATS}
    labels = [with_ids(ranked_labels(found.plain, choice.selection), found.plain) for choice in FORMATS]
    for choice, errors in zip(FORMATS, weight_errors(found, labels, chosen.batches), strict=True):
        figures[choice.name]["weight_gradient_error"] = errors
    publish(result_of(figures, found, chosen.batches), chosen.out)


if __name__ == "__main__":
    main()
