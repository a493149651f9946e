"""What does the whole recipe cost a row, and does it fit in memory at millions of rows? One core for everything.

Every size is a trace store of long answers with soft labels, four to a prompt. In a process of its own, whose memory
is watched, they are judged (in a verifier's process on the same core), filtered by every rule, compared with their
prompt's others and with a benchmark, and written as a version. A row takes some 15 KB of disk, twice while it is
written; many rows have no soft labels and are not written.

    .venv/bin/python -m tests.benchmarks.recipe --sizes 10000,100000,1000000,5000000
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil
import pyarrow as pa

from distill_data.config import Config
from distill_data.corpus import assemble as assembling
from distill_data.corpus import decide as deciding
from distill_data.corpus import judging
from distill_data.corpus.assembly import Assembly
from distill_data.corpus.decide import Decisions, decide
from distill_data.corpus.label_measures import LabelMeasures
from distill_data.filters.benchmark_texts import load_benchmarks
from distill_data.filters.shingles import HashedTexts
from distill_data.mapped import mapped_table
from distill_data.parquet import place
from distill_data.part_file import encode_part
from distill_data.planning import Retries, make_plan
from distill_data.prompts import PromptSet
from distill_data.prompts.prompt_set import DROPPED_SCHEMA
from distill_data.reasoning import split_completion
from distill_data.records import PART_SCHEMA, PROMPT_SCHEMA, SOFT_LABEL_FIELDS, Prompt, prompts_to_table
from distill_data.trace_store import TraceStore
from distill_data.verify import VerifierPool
from tests.benchmarks import filtering
from tests.benchmarks.deduplication import MEBIBYTE, own_peak
from tests.benchmarks.report import Result, parser, publish
from tests.benchmarks.stopwatch import Stopwatch

SIZES = [10_000, 100_000, 1_000_000]
MOST_LABELLED = 100_000  # more rows have no soft labels, which would fill the disk, and so no measures of labels
GOAL, ASSEMBLING_GOAL = 20_000, 300_000  # rows/s and tokens/s of one core
SAMPLES = 4
PART_ROWS = 512
TEACHER_ID = "0123456789abcdef"
LOOSE = {"min_mean_logprob": -50, "min_logprob": -100, "max_mean_entropy": 20, "max_code_share": 0.9}  # drawn labels
OF_LABELS = {"min_logprob": None, "max_mean_entropy": None}
EXAM = [
    f"A tank holds {n} litres and loses {n % 7 + 1} of them an hour, so how long does it last?" for n in range(1000)
]
START, JUDGE, LABELS, TEXTS, BENCHMARK, SAMPLED = (
    "start of the verifier", "judge", "measures of soft labels", "text filters", "benchmark", "samples of a prompt",
)  # fmt: skip
READ, SPLIT, HASH, REST = "read", "thinking from answer", "hashes of words", "the rest"
STAGES = [READ, SPLIT, JUDGE, TEXTS, LABELS, HASH, SAMPLED, BENCHMARK, REST, START]


def config_of(root: Path, exam: Path, labelled: bool) -> Config:
    """Everything that looks at a row, switched on; the language filter, which has a model, is left out."""
    rules = filtering.EVERYTHING | LOOSE | ({} if labelled else OF_LABELS)
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
        asked = ((number, [{"role": "user", "content": f"What is {number} + 1?"}]) for number in numbers)
        table = prompts_to_table(Prompt(chat, "sums", str(number + 1)) for number, chat in asked)
        yield from table.to_batches()


def write_store(root: Path, prompt_ids: pa.ChunkedArray, labelled: bool) -> TraceStore:
    """Traces of all prompts: a part's worth of long thoughts again and again, three answers in four right."""
    store = TraceStore(root, TEACHER_ID)
    store.folder.mkdir(parents=True)
    rows = len(prompt_ids) * SAMPLES
    thoughts, columns = _thoughts(min(rows, PART_ROWS), labelled)
    for start in range(0, rows, PART_ROWS):
        count = min(PART_ROWS, rows - start)
        numbers = np.arange(start, start + count)
        answers = (numbers // SAMPLES + (numbers % SAMPLES != 3)).tolist()
        said = zip(thoughts, answers, strict=False)
        own = {
            "prompt_id": prompt_ids.take(pa.array(numbers // SAMPLES)).combine_chunks(),
            "sample_index": pa.array((numbers % SAMPLES).astype(np.int32)),
            "content_digest": pa.array([f"{number:032x}" for number in numbers.tolist()]),
            "completion": pa.array([f"<think>\n{thought}\n</think>\n\nSo it is {answer}." for thought, answer in said]),
        }
        name, data = encode_part(pa.table({**own, **_columns(columns.slice(0, count))}, PART_SCHEMA))
        place(data, store.folder / name)
    return store


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: table[name] for name in table.column_names}


def _thoughts(rows: int, labelled: bool) -> tuple[list[str], pa.Table]:
    """What a part's traces think, one in 20 as the one before it, and the columns that every part has alike."""
    said = filtering.make_table(rows)
    texts = said["completion"].to_pylist()
    for row in range(1, rows, 20):
        texts[row] = texts[row - 1]
    nothing = pa.nulls(rows, pa.string())
    columns = {
        "prompt_suffix": pa.array([""] * rows),
        "finish_reason": pa.array(["stop"] * rows),
        "error": nothing,
        "error_detail": nothing,
        "prompt_tokens": pa.array(np.full(rows, 4, np.int32)),
        "completion_tokens": pa.array(np.full(rows, filtering.TOKENS, np.int32)),
        "mean_logprob": said["mean_logprob"],
        **(_labels(said) if labelled else {name: pa.array([[]] * rows, kind) for name, kind in SOFT_LABEL_FIELDS}),
    }
    return texts, pa.table(columns)


def _labels(said: pa.Table) -> dict[str, Any]:
    rows, kept = len(said), said["support_logprobs"].combine_chunks()
    random = np.random.default_rng(0)
    ids = pa.array(random.integers(0, filtering.VOCABULARY, rows * filtering.TOKENS).astype(np.int32))
    support_ids = pa.array(random.integers(0, filtering.VOCABULARY, len(kept.flatten())).astype(np.int32))
    offsets = pa.array((np.arange(rows + 1) * filtering.TOKENS).astype(np.int32))
    kept_offsets = pa.array(np.concatenate(([0], np.cumsum(kept.value_lengths().to_numpy()))).astype(np.int32))
    return {
        "prompt_token_ids": pa.array([[1, 2, 3, 4]] * rows, pa.list_(pa.int32())),
        "completion_token_ids": pa.ListArray.from_arrays(offsets, ids),
        **{name: said[name] for name in ("sampled_logprobs", "support_counts", "support_logprobs")},
        "support_ids": pa.ListArray.from_arrays(kept_offsets, support_ids),
    }


def make_job(root: Path, rows: int, labelled: bool) -> Assembly:
    """A version that is ready to be assembled: its store written, its prompts in a mapped file."""
    exam = root / "exam.jsonl"
    exam.write_text("".join(json.dumps({"question": text}) + "\n" for text in EXAM), encoding="utf-8")
    config = config_of(root, exam, labelled)
    table = mapped_table(PROMPT_SCHEMA, prompt_batches(-(-rows // SAMPLES)))
    store = write_store(root, table["prompt_id"], labelled)
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


def timed_decisions(job: Assembly) -> tuple[Decisions, dict[str, float], float]:
    """Decisions, the CPU seconds of every stage, and the most memory of the process's own above what it had, MiB.

    What the verifier's process took, once it had started, is the judge's.
    """
    store = replace(job, store=TraceStore(job.config.root, TEACHER_ID))  # nothing is open yet
    before, start = _ended_seconds(), 0.0

    class Started(VerifierPool):
        def __init__(self, judge: Any):
            nonlocal start
            super().__init__(judge)
            times = [child.cpu_times() for child in psutil.Process().children()]
            start += sum(spent.user + spent.system for spent in times)

    with Stopwatch(time.process_time) as watch, mock.patch.object(judging, "VerifierPool", Started):
        for owner, name, stage in (
            (TraceStore, "read", READ),
            (deciding, "split_part", SPLIT),
            (judging.Judging, "verdicts", JUDGE),
            (LabelMeasures, "read", LABELS),
            (deciding, "measure_all", TEXTS),
            (HashedTexts, "of", HASH),
            (deciding, "_recitals", BENCHMARK),
            (deciding, "drop_alike", SAMPLED),
        ):
            watch.time(owner, name, stage)
        with own_peak() as peak, watch.of(REST):
            decisions = decide(store, lambda progress: None)
    watch.seconds[JUDGE] += _ended_seconds() - before - start
    watch.seconds[START] = start
    return decisions, dict(watch.seconds), max(peak) / MEBIBYTE


def _ended_seconds() -> float:
    """CPU seconds of all processes that this one started and that have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def measure_size(rows: int) -> dict[str, Any]:
    """Figures of one size, in a process of its own: the decisions, the same with another filter, then the files."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    labelled = rows <= MOST_LABELLED
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as folder:
        decide(make_job(Path(small), PART_ROWS, True), lambda progress: None)  # loads what is loaded once
        job = make_job(Path(folder), rows, labelled)
        decisions, seconds, peak = timed_decisions(job)
        _, again, _ = timed_decisions(job)
        count = len(job.finished)
        del again[START]
        found = {
            "rows": count,
            "labelled": labelled,
            "us_per_row": {stage: 1e6 * seconds.get(stage, 0.0) / count for stage in STAGES},
            "start_seconds": seconds[START],
            "rows_per_second": count / (sum(seconds.values()) - seconds[START]),
            "again_rows_per_second": count / sum(again.values()),
            "deciding_peak_mib": peak,
            "kept": decisions.table["drop_reason"].null_count,
        }
        return found | (_written(job, decisions) if labelled else {})


def _written(job: Assembly, decisions: Decisions) -> dict[str, Any]:
    began = time.process_time()
    with own_peak() as writing, mock.patch.object(assembling, "decide", lambda job, say: decisions):
        manifest = assembling.assemble(job, lambda progress: None)
    return {
        "dropped": manifest.dropped,
        "tokens_per_second": len(job.finished) * filtering.TOKENS / (time.process_time() - began),
        "writing_peak_mib": max(writing) / MEBIBYTE,
    }


def result_of(sizes: list[dict[str, Any]]) -> Result:
    """The table: a line per stage, a column per size."""
    last, written = sizes[-1], next((found for found in reversed(sizes) if found["labelled"]), None)
    rows = [[stage, *(f"{found['us_per_row'][stage]:.1f}" for found in sizes)] for stage in STAGES if stage != START]
    figures = [
        ("all of it, rows/s", "rows_per_second", "{:,.0f}"),
        ("with another filter, rows/s", "again_rows_per_second", "{:,.0f}"),
        ("start of the verifier, s", "start_seconds", "{:.1f}"),
        ("memory, MiB", "deciding_peak_mib", "{:,.0f}"),
        ("written, tokens/s", "tokens_per_second", "{:,.0f}"),
        ("memory of writing, MiB", "writing_peak_mib", "{:,.0f}"),
    ]
    for name, key, form in figures:
        rows.append([name, *(form.format(found[key]) if key in found else "" for found in sizes)])
    return Result(
        name="recipe",
        title="The recipe: judged, filtered, deduplicated, decontaminated and written, on one core",
        headline=f"Of {last['rows']:,} traces of {filtering.TOKENS} tokens one core judges, filters and compares "
        f"{last['rows_per_second']:,.0f} a second (goal {GOAL:,}) in {last['deciding_peak_mib']:,.0f} MiB"
        + (
            f"; of {written['rows']:,} with soft labels it writes {written['tokens_per_second']:,.0f} tokens/s (goal "
            f"{ASSEMBLING_GOAL:,})."
            if written
            else "."
        ),
        header=["us/row", *(f"{found['rows']:,} traces" for found in sizes)],
        rows=rows,
        figures={"sizes": sizes, "goal": GOAL, "assembling_goal": ASSEMBLING_GOAL},
        note="One run of each size, on one core together with the process of the verifier (`numeric`), in CPU seconds "
        "of both, so that others at work on the machine do not count; the start of that process, and only that, is "
        f"counted apart. Everything from reading the store on is in. All thresholds are on, {SAMPLES} samples of each "
        f"prompt are compared with each other and all with a benchmark of {len(EXAM):,} questions; the language "
        "filter, which has a model, is left out. Traces have some 2,000 characters; their soft labels are measured "
        f"once and the measures kept; above {MOST_LABELLED:,} traces there are none. With another filter verdicts and "
        "measures are known. Memory is the process's own, above what it had before.",
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
