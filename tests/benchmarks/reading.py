"""How fast do soft labels come from a version's files as tensors? One core, one torch thread.

Traces with a fixed support and with one cut by probability are written as a corpus writes them. They are read as a
stream, and laid out in a mapped file and read in any order from there, once and again (later epochs); shares of the
time show the next limit. What is paid once, a file's hash and the lengths of its traces, is shown apart.

    .venv/bin/python -m tests.benchmarks.reading
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader

from distill_data.corpus.data_file import row_groups
from distill_data.corpus.manifest import FileFacts
from distill_data.corpus.write import file_facts, parquet_writer
from distill_data.mapped import mapped_table
from distill_data.records import SOFT_LABELS_SCHEMA
from distill_data.soft_labels import select_support
from distill_data.student import dataset, streaming
from distill_data.student.collate import SoftLabelCollator
from distill_data.student.dataset import SoftLabelDataset
from distill_data.student.streaming import SoftLabelStream, _OpenGroup
from distill_data.teacher_config import SoftLabelSelection
from tests.benchmarks.ceiling import make_batch
from tests.benchmarks.report import Result, parser, publish
from tests.benchmarks.stopwatch import Stopwatch
from tests.benchmarks.workload import in_pages, long_tailed_lengths

KINDS = {
    "fixed": SoftLabelSelection(min_prob=0.0, max_support=32),
    "variable": SoftLabelSelection(min_prob=0.001, max_support=64),
}
GOALS = {"fixed": 2_000_000, "variable": 1_000_000}  # tokens/s of the stream
VOCABULARY = 49_152
PROMPT_TOKENS = 60
GROUP_TRACES = 2048
BATCH = 32
MAX_LENGTH = 1024
STEPS = {
    "hash": "hash: sha256 of the file",
    "lengths": "lengths: of all traces, ahead",
    "decode": "decode: Parquet to Arrow",
    "write": "write: the mapped file",
    "check": "check: columns fit together",
    "collate": "collate: traces to tensors",
    "rest": "rest: traces one by one, batches",
}


@dataclass(frozen=True)
class Data:
    """A file of soft labels, and what is in it."""

    path: Path
    facts: FileFacts
    tokens: int
    mean_support: float


def make_data(folder: Path, name: str, traces: int) -> Data:
    """Traces of long-tailed lengths with ids and distributions as uneven as a language model's."""
    path, counts = folder / name / "train.parquet", []
    groups = np.array_split(long_tailed_lengths(traces), -(-traces // GROUP_TRACES))
    with parquet_writer(path, SOFT_LABELS_SCHEMA, {}, page_per_chunk=True) as writer:
        for seed, lengths in enumerate(groups):
            table = _table(lengths, KINDS[name], seed)
            counts.append(table["support_counts"].combine_chunks().flatten().to_numpy())
            writer.write_table(in_pages(table))
    kept = np.concatenate(counts)
    return Data(path, file_facts(folder, path), len(kept), float(kept.mean()))


def _table(lengths: np.ndarray, selection: SoftLabelSelection, seed: int) -> pa.Table:
    batch = make_batch(lengths, selection.max_support, VOCABULARY, seed)
    ids, logprobs, _ = batch.rows[:3]
    labels = select_support(ids[:, 1:], logprobs[:, 1:], logprobs[:, 0], selection)
    ends = np.concatenate(([0], np.cumsum(lengths)))
    supports = np.concatenate(([0], np.cumsum(labels.support_counts, dtype=np.int64)))[ends]
    prompts = np.random.default_rng(seed).integers(0, VOCABULARY, PROMPT_TOKENS)
    columns = {
        "trace_id": pa.array([wanted.prompt_id for wanted in batch.wanted]),
        "prompt_token_ids": _lists(np.arange(len(lengths) + 1) * len(prompts), np.tile(prompts, len(lengths))),
        "completion_token_ids": _lists(ends, ids[:, 0]),
        **{
            field: _lists(supports if field.startswith("support_") and "counts" not in field else ends, values)
            for field, values in vars(labels).items()
        },
    }
    return pa.table(columns).cast(SOFT_LABELS_SCHEMA)


def _lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def read_stream(data: Data) -> dict[str, float]:
    """Seconds per step of a stream's epoch; what is paid once was paid before."""
    stream = SoftLabelStream(row_groups(data.path, data.facts), MAX_LENGTH)
    with Stopwatch() as watch:
        _time_steps(watch)
        with watch.of("rest"):
            _drain(stream, watch, data)
    return dict(watch.seconds)


def read_first(data: Data) -> dict[str, float]:
    """Seconds per step of a stream's first epoch, its checks ahead included."""
    with Stopwatch() as watch:
        _time_steps(watch)
        with watch.of("rest"):
            with watch.of("lengths"):
                stream = SoftLabelStream(row_groups(data.path, data.facts), MAX_LENGTH)
            _drain(stream, watch, data)
    return dict(watch.seconds)


def read_mapped(data: Data) -> dict[str, float]:
    """Seconds per step to lay the traces out in a mapped file and to read all of them from there, shuffled."""
    with Stopwatch() as watch:
        _time_steps(watch)
        with watch.of("rest"):
            _drain(SoftLabelDataset(_mapped(data, watch), MAX_LENGTH), watch, data)
    return dict(watch.seconds)


def read_again(data: Data) -> dict[str, float]:
    """Seconds per step of every epoch after the first, where the traces are laid out in a mapped file."""
    table = _mapped(data, Stopwatch())
    with Stopwatch() as watch:
        _time_steps(watch)
        with watch.of("rest"):
            _drain(SoftLabelDataset(table, MAX_LENGTH), watch, data)
    return dict(watch.seconds)


def _mapped(data: Data, watch: Stopwatch) -> pa.Table:
    groups = row_groups(data.path, data.facts)
    batches = (batch for group in groups for batch in group.batches(None, 1024))
    with watch.of("write"):
        return mapped_table(SOFT_LABELS_SCHEMA, _decoded(batches, watch))


def _decoded(batches: Iterable[pa.RecordBatch], watch: Stopwatch) -> Iterable[pa.RecordBatch]:
    waiting = iter(batches)
    while True:
        with watch.of("decode"):
            batch = next(waiting, None)
        if batch is None:
            return
        yield batch


def _time_steps(watch: Stopwatch) -> None:
    watch.time(hashlib, "file_digest", "hash")
    watch.time(_OpenGroup, "chunk", "decode")
    watch.time(streaming, "Block", "check")
    watch.time(dataset, "Block", "check")
    watch.time(streaming, "_trace_lengths", "lengths")
    watch.time(SoftLabelCollator, "__call__", "collate")


def _drain(traces: Any, watch: Stopwatch, data: Data) -> None:
    tokens = 0
    shuffle = None if isinstance(traces, SoftLabelStream) else True
    for batch in DataLoader(traces, BATCH, shuffle=shuffle, collate_fn=SoftLabelCollator()):
        tokens += len(batch["target_ids"])
    assert tokens == data.tokens


WAYS = {"first": read_first, "stream": read_stream, "mapped": read_mapped, "again": read_again}


def measure(traces: int, rounds: int) -> dict[str, Any]:
    """Figures by kind and way: those of the run whose sum is the median. The first round is left out."""
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: make_data(Path(folder), kind, traces) for kind in KINDS}
        runs: dict[tuple[str, str], list[dict[str, float]]] = {(kind, way): [] for kind in KINDS for way in WAYS}
        for number in range(rounds + 1):
            for kind, way in runs:
                found = WAYS[way](files[kind])
                runs[kind, way] += [found] if number else []
        return {kind: _figures(data, {way: runs[kind, way] for way in WAYS}) for kind, data in files.items()}


def _figures(data: Data, runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "tokens": data.tokens,
        "mean_support": data.mean_support,
        "bytes_per_token": data.facts.bytes / data.tokens,
    }
    for way, found in runs.items():
        middle = sorted(found, key=lambda seconds: sum(seconds.values()))[len(found) // 2]
        figures[way] = {
            "tokens_per_second": data.tokens / sum(middle.values()),
            "tokens_per_second_of_runs": [data.tokens / sum(seconds.values()) for seconds in found],
            "microseconds_per_token": {step: 1e6 * middle.get(step, 0.0) / data.tokens for step in STEPS},
        }
    return figures


def result_of(figures: dict[str, Any], rounds: int) -> Result:
    """The table: a line per step, microseconds a token and share of the whole per kind and way."""
    columns = [figures[kind][way] for kind in KINDS for way in WAYS]
    rows = []
    for step, label in STEPS.items():
        spent = [(found["microseconds_per_token"][step], found["tokens_per_second"] / 1e6) for found in columns]
        rows.append([label, *(f"{cost:.3f} ({cost * rate:.0%})" for cost, rate in spent)])
    speeds = [f"{found['tokens_per_second']:,.0f}" for found in columns]
    rows.append(["tokens/s on one core", *speeds])
    fixed, variable = figures["fixed"], figures["variable"]
    return Result(
        name="reading",
        title="Reading: soft labels from Parquet to tensors, on one core",
        headline=f"One core streams {speeds[1]} tokens/s from Parquet to tensors at a fixed support of 32 (goal "
        f"{GOALS['fixed']:,}) and {speeds[5]} at a variable one, {variable['mean_support']:.0f} of 64 on average (goal "
        f"{GOALS['variable']:,}); {speeds[0]} and {speeds[4]} where the file is hashed first, once; `train` "
        f"lays it out in a mapped file, {speeds[2]} and {speeds[6]}, from which every later epoch has {speeds[3]} and "
        f"{speeds[7]}.",
        header=["us/token", *(f"{kind}, {way}" for kind in KINDS for way in WAYS)],
        rows=rows,
        figures=figures,
        note=f"Medians of {rounds} alternated runs over {fixed['tokens']:,} completion tokens in batches of {BATCH} "
        f"traces; {fixed['bytes_per_token']:.0f} and {variable['bytes_per_token']:.0f} bytes a token on disk, in the "
        "page cache. Paid once and not every epoch: hash and lengths, and of the mapped file also decode and write. "
        "`first` is a stream's first epoch, `stream` every one without what is paid once, `again` a later one of the "
        "mapped file.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--traces", type=int, default=8192)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args(arguments)
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {max(cores)})
    torch.set_num_threads(1)
    try:
        figures = measure(chosen.traces, chosen.rounds)
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
    publish(result_of(figures, chosen.rounds), chosen.out)


if __name__ == "__main__":
    main()
