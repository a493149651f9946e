"""How many texts a second are compared with all others, with their prompt's samples and with benchmarks, on one core?

Texts of 375 words (some 500 tokens), a fifth of them an earlier one with one word in a hundred changed. Every case runs
in a process of its own, whose memory is watched from inside; the texts themselves are in a mapped file.

    .venv/bin/python -m tests.benchmarks.deduplication --sizes 10000,100000,1000000
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.alike_samples import alike_samples
from distill_data.filters.decontamination import Benchmarks, BenchmarkTexts
from distill_data.filters.near_duplicates import first_alike
from distill_data.filters.shingles import HashedTexts
from distill_data.mapped import mapped_table
from tests.benchmarks.report import Result, parser, publish

SIZES = [10_000, 100_000, 1_000_000]
GOAL = 20_000  # rows/s per core
WORDS = 375
VOCABULARY = 30_000
BATCH = 5000
COPIES = 0.2
CHANGED = 0.01
SAMPLES = 4
BENCHMARK_TEXTS = 20_000  # of 100 words: 1.8 million n-grams
MEBIBYTE = 2**20


def make_texts(rows: int, words: int, seed: int) -> Iterator[pa.Array]:
    """Texts with words as frequent as Zipf says, in batches; copies stand in the batch of what they copy."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("etaoinshrdlucm"), (VOCABULARY, 8))
    lengths = rng.integers(2, 9, VOCABULARY)
    spelled = pa.array(["".join(word[:length]) for word, length in zip(letters, lengths, strict=True)])
    cumulated = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        ids = np.searchsorted(cumulated, rng.random((count, words)) * cumulated[-1])
        copies = np.flatnonzero(rng.random(count) < COPIES)[1:]
        ids[copies] = np.where(rng.random((len(copies), words)) < CHANGED, ids[copies], ids[rng.integers(0, copies)])
        offsets = pa.array(np.arange(count + 1) * words, pa.int32())
        yield pc.binary_join(pa.ListArray.from_arrays(offsets, spelled.take(pa.array(ids.ravel()))), " ")


def prompts(texts: pa.ChunkedArray) -> int:
    """How many prompts are near-duplicates."""
    return int((first_alike(texts, 0.8) != np.arange(len(texts))).sum())


def samples(texts: pa.ChunkedArray) -> int:
    """How many samples are near-duplicates, looked at 5,000 rows at a time, as a version is assembled."""
    found = 0
    for chunk in texts.chunks:
        groups = np.arange(len(chunk)) // SAMPLES
        found += int((alike_samples(HashedTexts.of(chunk), groups, 0.8) != np.arange(len(chunk))).sum())
    return found


def decontamination(texts: pa.ChunkedArray) -> int:
    """How many prompts hold text of a benchmark; the index is made here too."""
    made = pa.chunked_array(list(make_texts(BENCHMARK_TEXTS, 100, seed=1)))
    return len(Benchmarks([BenchmarkTexts("exam", made)]).touched(texts))


CASES: dict[str, Callable[[pa.ChunkedArray], int]] = {
    "prompts": prompts,
    "samples": samples,
    "decontamination": decontamination,
}


def measure_case(name: str, rows: int) -> dict[str, float]:
    """Rows/s, peak memory above what the process had before, and what was found; in a process of its own."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    schema = pa.schema([("text", pa.string())])
    batches = (pa.record_batch([made], schema) for made in make_texts(rows, WORDS, seed=0))
    texts = mapped_table(schema, batches)["text"]
    CASES[name](pa.chunked_array(list(make_texts(SAMPLES, WORDS, seed=2))))  # loads what is loaded once
    began = time.perf_counter()
    with own_peak() as peak:
        found = CASES[name](texts)
    seconds = time.perf_counter() - began
    return {"rows_per_second": rows / seconds, "peak_mib": max(peak) / MEBIBYTE, "found": found}


@contextmanager
def own_peak() -> Iterator[list[int]]:
    """Memory that no file backs, above what there was, a hundred times a second."""
    process, done = psutil.Process(), threading.Event()
    before = _own(process)
    seen = [0]

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(_own(process) - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _own(process: psutil.Process) -> int:
    memory = process.memory_info()
    return memory.rss - memory.shared


def measure(sizes: Sequence[int]) -> dict[str, Any]:
    """Figures by case and number of rows."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        return {name: {str(rows): pool.submit(measure_case, name, rows).result() for rows in sizes} for name in CASES}


def result_of(figures: dict[str, Any]) -> Result:
    """The table: a line per case and size."""
    rows = [
        [
            name,
            f"{int(size):,}",
            f"{found['rows_per_second']:,.0f}",
            f"{found['peak_mib']:,.0f}",
            f"{found['found'] / int(size):.1%}",
        ]
        for name, sizes in figures.items()
        for size, found in sizes.items()
    ]
    last = {name: list(sizes.items())[-1] for name, sizes in figures.items()}
    speeds = [f"{found['rows_per_second']:,.0f}" for _, found in last.values()]
    size, found = last["prompts"]
    return Result(
        name="deduplication",
        title="Deduplication and decontamination on one core",
        headline=f"One core compares {speeds[0]} prompts/s with all others of {int(size):,} in "
        f"{found['peak_mib']:,.0f} MiB, {speeds[1]} samples/s with their prompt's others and {speeds[2]} prompts/s "
        f"with a benchmark (goal {GOAL:,}).",
        header=["case", "rows", "rows/s", "peak MiB", "found"],
        rows=rows,
        figures={"cases": figures},
        note=f"Texts of {WORDS} words, {COPIES:.0%} of them copies with {CHANGED:.0%} of the words changed; {SAMPLES} "
        f"samples a prompt; a benchmark of {BENCHMARK_TEXTS:,} texts of 100 words, whose index is made in the measured "
        "time. Memory is above that of the process before, without what a file backs.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of rows")
    chosen = options.parse_args(arguments)
    publish(result_of(measure([int(size) for size in chosen.sizes.split(",")])), chosen.out)


if __name__ == "__main__":
    main()
