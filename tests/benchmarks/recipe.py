"""What does the whole recipe cost a row, and does it fit in memory at millions of rows? One core for everything.

Every size is a trace store of long answers with soft labels, four to a prompt. In a process of its own, whose memory
is watched, they are judged (in a verifier's process on the same core), filtered by every rule, compared with their
prompt's others and with a benchmark, and written as a version. A row takes some 15 KB of disk, twice while it is
written.

    .venv/bin/python -m tests.benchmarks.recipe --sizes 10000,100000,1000000,5000000
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from distill_data.config import Config
from distill_data.corpus import assemble as assembling
from distill_data.corpus.assembly import Assembly
from distill_data.corpus.decide import decide
from distill_data.filters.benchmark_texts import load_benchmarks
from distill_data.mapped import mapped_table
from distill_data.parquet import place
from distill_data.part_file import encode_part
from distill_data.planning import Retries, make_plan
from distill_data.prompts import PromptSet
from distill_data.prompts.prompt_set import DROPPED_SCHEMA
from distill_data.reasoning import split_completion
from distill_data.records import PART_SCHEMA, PROMPT_SCHEMA, Prompt, prompts_to_table
from distill_data.trace_store import TraceStore
from tests.benchmarks import filtering
from tests.benchmarks.deduplication import MEBIBYTE, own_peak
from tests.benchmarks.report import Result, parser, publish

SIZES = [10_000, 100_000, 1_000_000, 5_000_000]
GOAL, ASSEMBLING_GOAL = 20_000, 300_000  # rows/s and tokens/s of one core
SAMPLES = 4
PART_ROWS = 512
TEACHER_ID = "0123456789abcdef"
LOOSE = {"min_mean_logprob": -50, "min_logprob": -100, "max_mean_entropy": 20, "max_code_share": 0.9}  # drawn labels
EXAM = [
    f"A tank holds {n} litres and loses {n % 7 + 1} of them an hour, so how long does it last?" for n in range(1000)
]


def config_of(root: Path, exam: Path) -> Config:
    """Everything that looks at a row, switched on; the language filter, which has a model, is left out."""
    rules = filtering.EVERYTHING | LOOSE
    return Config.model_validate(
        {
            "name": "recipe",
            "root": str(root),
            "prompts": [{"source": "dataset", "path": "sums.jsonl", "prompt": "question", "reference": "answer"}],
            "teacher": {"model": "none", "sampling": {"samples": SAMPLES}},
            "judge": {"verifier": "numeric", "processes": 1},
            "filters": rules,
            "deduplicate": {"samples": "drop"},
            "decontaminate": {"benchmarks": [{"path": str(exam), "text": ["question"]}], "traces": "drop"},
            "keep": {"passed_only": True},
        }
    )


def prompt_batches(prompts: int) -> Iterator[pa.RecordBatch]:
    """Different prompts, each with its right answer."""
    for start in range(0, prompts, PART_ROWS):
        numbers = range(start, min(start + PART_ROWS, prompts))
        asked = ([{"role": "user", "content": f"What is {number} + 1?"}] for number in numbers)
        table = prompts_to_table(Prompt(chat, "sums", "42") for chat in asked)
        yield from table.to_batches()


def write_store(root: Path, prompt_ids: pa.ChunkedArray) -> TraceStore:
    """Traces of all prompts: a part's worth of long answers again and again, three in four of them right."""
    store = TraceStore(root, TEACHER_ID)
    store.folder.mkdir(parents=True)
    rows = len(prompt_ids) * SAMPLES
    answers = _answers(min(rows, PART_ROWS))
    for start in range(0, rows, PART_ROWS):
        count = min(PART_ROWS, rows - start)
        numbers = np.arange(start, start + count)
        own = {
            "prompt_id": prompt_ids.take(pa.array(numbers // SAMPLES)).combine_chunks(),
            "sample_index": pa.array((numbers % SAMPLES).astype(np.int32)),
            "content_digest": pa.array([f"{number:032x}" for number in numbers.tolist()]),
        }
        name, data = encode_part(pa.table({**own, **_columns(answers.slice(0, count))}, PART_SCHEMA))
        place(data, store.folder / name)
    return store


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: table[name] for name in table.column_names}


def _answers(rows: int) -> pa.Table:
    """What a part's traces say, with soft labels; one in 20 says what its prompt's sample before it said."""
    said = filtering.make_table(rows)
    texts = said["completion"].to_pylist()
    for row in range(1, rows, 20):
        texts[row] = texts[row - 1]
    ends = [f"<think>\n{text}\n</think>\n\nSo it is {41 if row % 4 == 3 else 42}." for row, text in enumerate(texts)]
    tokens, kept = rows * filtering.TOKENS, said["support_logprobs"].combine_chunks()
    random = np.random.default_rng(0)
    ids = pa.array(random.integers(0, filtering.VOCABULARY, tokens).astype(np.int32))
    support_ids = pa.array(random.integers(0, filtering.VOCABULARY, len(kept.flatten())).astype(np.int32))
    offsets = pa.array((np.arange(rows + 1) * filtering.TOKENS).astype(np.int32))
    lengths = kept.value_lengths().to_numpy()
    kept_offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))
    nothing = pa.nulls(rows, pa.string())
    columns = {
        "completion": pa.array(ends),
        "prompt_suffix": pa.array([""] * rows),
        "finish_reason": pa.array(["stop"] * rows),
        "error": nothing,
        "error_detail": nothing,
        "prompt_tokens": pa.array(np.full(rows, 4, np.int32)),
        "completion_tokens": pa.array(np.full(rows, filtering.TOKENS, np.int32)),
        "mean_logprob": said["mean_logprob"],
        "prompt_token_ids": pa.array([[1, 2, 3, 4]] * rows, pa.list_(pa.int32())),
        "completion_token_ids": pa.ListArray.from_arrays(offsets, ids),
        **{name: said[name] for name in ("sampled_logprobs", "support_counts", "support_logprobs")},
        "support_ids": pa.ListArray.from_arrays(kept_offsets, support_ids),
    }
    return pa.table(columns)


def make_job(root: Path, rows: int) -> Assembly:
    """A version that is ready to be assembled: its store written, its prompts in a mapped file."""
    exam = root / "exam.jsonl"
    exam.write_text("".join(json.dumps({"question": text}) + "\n" for text in EXAM), encoding="utf-8")
    config = config_of(root, exam)
    table = mapped_table(PROMPT_SCHEMA, prompt_batches(-(-rows // SAMPLES)))
    store = write_store(root, table["prompt_id"])
    samples = np.full(len(table), SAMPLES)
    benchmarks, facts = load_benchmarks(config.decontaminate)
    pinned = {name: {**fact, "prompts": 0} for name, fact in facts.items()}
    return Assembly(
        config=config,
        prompts=PromptSet(table, DROPPED_SCHEMA.empty_table(), {"sums": {}}, pinned),
        store=store,
        finished=make_plan(table["prompt_id"], samples, store.index(), Retries(None)).finished,
        teacher_id=TEACHER_ID,
        teacher={},
        tokenizer={"sha256": "ab" * 32, "vocab_size": filtering.VOCABULARY, "eos_token_id": 2},
        digest="0" * 64,
        split=partial(split_completion, reasoning=config.teacher.reasoning),
        benchmarks=benchmarks,
    )


def measure_size(rows: int) -> dict[str, Any]:
    """Figures of one size, in a process of its own: the decisions, then the files."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as folder:
        decide(make_job(Path(small), SAMPLES), lambda progress: None)  # loads what is loaded once
        job = make_job(Path(folder), rows)
        began = time.perf_counter()
        with own_peak() as deciding:
            decisions = decide(job, lambda progress: None)
        decided = time.perf_counter()
        with own_peak() as writing, mock.patch.object(assembling, "decide", lambda job, say: decisions):
            manifest = assembling.assemble(job, lambda progress: None)
        written = time.perf_counter()
    return {
        "rows": len(job.finished),
        "kept": manifest.counts["kept"],
        "dropped": manifest.dropped,
        "rows_per_second": len(job.finished) / (decided - began),
        "tokens_per_second": len(job.finished) * filtering.TOKENS / (written - decided),
        "deciding_peak_mib": max(deciding) / MEBIBYTE,
        "writing_peak_mib": max(writing) / MEBIBYTE,
    }


def result_of(sizes: list[dict[str, Any]]) -> Result:
    """The table: a line per size."""
    last = sizes[-1]
    rows = [
        [
            f"{found['rows']:,}",
            f"{found['rows_per_second']:,.0f}",
            f"{found['tokens_per_second']:,.0f}",
            f"{found['deciding_peak_mib']:,.0f}",
            f"{found['writing_peak_mib']:,.0f}",
            f"{found['kept'] / found['rows']:.1%}",
        ]
        for found in sizes
    ]
    return Result(
        name="recipe",
        title="The recipe: judged, filtered, deduplicated, decontaminated and written, on one core",
        headline=f"Of {last['rows']:,} traces of {filtering.TOKENS} tokens one core judges, filters and compares "
        f"{last['rows_per_second']:,.0f} a second (goal {GOAL:,}) in {last['deciding_peak_mib']:,.0f} MiB, and writes "
        f"{last['tokens_per_second']:,.0f} tokens/s (goal {ASSEMBLING_GOAL:,}).",
        header=["traces", "decided/s", "written tokens/s", "deciding, MiB", "writing, MiB", "kept"],
        rows=rows,
        figures={"sizes": sizes, "goal": GOAL, "assembling_goal": ASSEMBLING_GOAL},
        note=f"One run of each size. Everything from reading the store on is in the time; the verifier is `numeric`, "
        f"all thresholds are on, {SAMPLES} samples of each prompt are compared with each "
        f"other and all with a benchmark of {len(EXAM):,} questions. Memory is the process's own, above what it had "
        "before. The language filter, which has a model, is left out.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=SIZES)
    chosen = options.parse_args(arguments)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        sizes = [pool.submit(measure_size, rows).result() for rows in chosen.sizes]
    publish(result_of(sizes), chosen.out)


if __name__ == "__main__":
    main()
