"""How fast are the content filters? One core, traces of 500 tokens (some 2 KB of text), every measure and all of them.

Texts are sentences of this project's README with formulas, some with Greek letters, some Chinese, some that loop;
distributions are as uneven as a language model's. Growth of the peak of memory is measured at every size.

    .venv/bin/python -m tests.benchmarks.filtering
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from distill_data.filter_config import Filters
from distill_data.filters.measures import MEASURES
from distill_data.filters.thresholds import active, content_reasons, measure_all
from distill_data.soft_labels import select_support
from distill_data.teacher_config import SoftLabelSelection
from tests.benchmarks.ceiling import make_batch
from tests.benchmarks.report import PROJECT, Result, parser, publish

GOAL = 20_000  # rows/s of one core, all rules together
ALL = "all rules and their reasons"
TOKENS = 500
CHARACTERS = 2000
VOCABULARY = 49_152
PROMPT = "A train leaves at 9:40 and needs 3 hours and 25 minutes. When does it arrive? Explain every step."
FILTERS: dict[str, dict[str, Any]] = {
    "tokens": {"min_tokens": 16, "max_tokens": 4096},
    "longest_paragraph": {"max_paragraph_characters": 6000},
    "repetition": {"max_repetition": 0.3},
    "compression": {"max_compression": 6.0},
    "other_script_share": {"max_other_script_share": 0.2},
    "code_share": {"max_code_share": 0.1},
    "refusal": {"refusals": True},
    "leakage": {"leakage": True},
    "personal_data": {"personal_data": True},
    "mean_logprob": {"min_mean_logprob": -2.0},
    "least_logprob": {"min_logprob": -20.0},
    "mean_entropy": {"max_mean_entropy": 2.0},
}
EVERYTHING: dict[str, Any] = {key: value for keys in FILTERS.values() for key, value in keys.items()}
CHINESE = (
    "首先，我们需要理解题目的要求。设两次相遇的时间间隔为 $t$ 小时，那么甲走过的路程是 $60t$ 千米。"  # noqa: RUF001
    "根据 Transformer 模型的注意力机制，我们可以得到同样的结论。因此，答案是四小时。"  # noqa: RUF001
)


def make_table(rows: int, seed: int = 0) -> pa.Table:
    """Traces as the filters see them. One in 50 is Chinese, one in 50 loops, one in 10 has a Greek letter."""
    random = np.random.default_rng(seed)
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    sentences = np.array([one.strip() for one in re.split(r"(?<=[.:])\s|\n\n", readme) if 20 < len(one) < 200])
    completions = [_completion(random, sentences, kind) for kind in random.integers(0, 100, rows).tolist()]
    return pa.table(
        {
            "completion": completions,
            "answer": [completion[-300:] for completion in completions],
            "prompt": [PROMPT] * rows,
            "completion_tokens": pa.array(np.full(rows, TOKENS, np.int32)),
            **_labels(rows, seed),
        }
    )


def _completion(random: np.random.Generator, sentences: np.ndarray, kind: int) -> str:
    pieces = random.choice(sentences, 24).tolist()
    if kind < 2:
        pieces = [CHINESE] * 8
    elif kind < 4:
        pieces = pieces[:3] + ["Wait, let me check that again, since the sum has to be even."] * 40
    elif kind < 14:
        pieces[5] = "so that α + β = 90°"  # noqa: RUF001
    pieces[3] = r"\[ \frac{x^2 + 3x}{2} = 45 \quad\Rightarrow\quad x = " + str(kind) + r" \]"
    ends = random.choice([" ", "\n", "\n\n"], len(pieces), p=[0.6, 0.2, 0.2]).tolist()
    return "".join(piece + end for piece, end in zip(pieces, ends, strict=True))[:CHARACTERS]


def _labels(rows: int, seed: int) -> dict[str, pa.Array]:
    """Soft labels cut by probability; 64 rows of them again and again."""
    few = min(rows, 64)
    batch = make_batch(np.full(few, TOKENS), 64, VOCABULARY, seed)
    ids, logprobs, _ = batch.rows[:3]
    chosen = SoftLabelSelection(min_prob=0.01, max_support=64)
    labels = select_support(ids[:, 1:], logprobs[:, 1:], logprobs[:, 0], chosen)
    ends = np.arange(few + 1) * TOKENS
    supports = np.concatenate(([0], np.cumsum(labels.support_counts, dtype=np.int64)))[ends]
    again = pa.array(np.arange(rows) % few)
    means = labels.sampled_logprobs.reshape(few, TOKENS).mean(axis=1)
    return {
        "mean_logprob": pa.array(means).take(again),
        "sampled_logprobs": _lists(ends, labels.sampled_logprobs).take(again),
        "support_counts": _lists(ends, labels.support_counts).take(again),
        "support_logprobs": _lists(supports, labels.support_logprobs).take(again),
    }


def _lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def filter_all(table: pa.Table, filters: Filters) -> pa.StringArray:
    """The content reasons of a table, as a build finds them."""
    return content_reasons(measure_all(table, filters), filters)


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Figures of one size: rows/s by measure, medians of the rounds; the first, which warms up, is left out."""
    table = make_table(rows)
    everything = Filters(**EVERYTHING)
    jobs: dict[str, Callable[[], Any]] = {
        name: partial(measure_all, table, Filters(**keys)) for name, keys in FILTERS.items()
    }
    jobs[ALL] = lambda: filter_all(table, everything)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    filter_all(table.slice(0, 1000), everything)
    before = _peak_mib()
    for number in range(rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name] += [time.perf_counter() - start] if number else []
    return {
        "rows": rows,
        "characters_per_row": float(np.mean([len(text) for text in table["completion"].to_pylist()])),
        "mean_support": len(table["support_logprobs"].combine_chunks().values) / (rows * TOKENS),
        "dropped": {reason: count for reason, count in _reasons(table, everything).items() if reason},
        "rows_per_second": {name: rows / float(np.median(found)) for name, found in seconds.items()},
        "peak_growth_mib": _peak_mib() - before,
    }


def _reasons(table: pa.Table, filters: Filters) -> dict[str | None, int]:
    counted = filter_all(table, filters).value_counts().to_pylist()
    return {found["values"]: found["counts"] for found in counted}


def _peak_mib() -> float:
    """The most memory that this process has held at once."""
    if psutil.LINUX:
        with open("/proc/self/status", encoding="utf-8") as status:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1)) / 1024  # type: ignore[union-attr]
    return psutil.Process().memory_info().rss / 2**20


def result_of(sizes: list[dict[str, Any]], rounds: int) -> Result:
    """The table: a line per measure, rows/s and microseconds a row per size."""
    largest = sizes[-1]
    speed = largest["rows_per_second"][ALL]
    rows = []
    for name in [*MEASURES, ALL]:
        rates = [size["rows_per_second"][name] for size in sizes]
        rows.append([name, *(f"{rate:,.0f} ({1e6 / rate:.1f})" for rate in rates)])
    rows.append(["growth of peak memory, MiB", *(f"{size['peak_growth_mib']:.0f}" for size in sizes)])
    return Result(
        name="filtering",
        title="Filtering: the content filters, on one core",
        headline=f"One core measures and filters {speed:,.0f} traces of {TOKENS} tokens a second with all "
        f"{len(active(Filters(**EVERYTHING)))} rules (goal {GOAL:,}).",
        header=["rows/s (us/row)", *(f"{size['rows']:,} rows" for size in sizes)],
        rows=rows,
        figures={"sizes": sizes, "goal": GOAL},
        note=f"Medians of {rounds} alternated runs; {largest['characters_per_row']:,.0f} characters and {TOKENS} "
        f"tokens a row, {largest['mean_support']:.1f} kept tokens a position; the table is in memory. The language "
        "filter, which has a model, is left out.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", default="10000,30000", help="rows, the smallest first")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args(arguments)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    pa.set_cpu_count(1)
    try:
        sizes = [measure(int(size), chosen.rounds) for size in chosen.sizes.split(",")]
    finally:
        os.sched_setaffinity(0, cores)
        pa.set_cpu_count(len(cores))
    publish(result_of(sizes, chosen.rounds), chosen.out)


if __name__ == "__main__":
    main()
