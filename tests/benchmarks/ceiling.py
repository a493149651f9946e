"""How fast can traces be stored? Finished requests replayed from memory, without a model, on one core.

What vLLM's engine core sends step by step, for 64 requests at a time, goes the way of a worker: rows to arrays,
support, text, table, part on disk. Shares of the time show the next limit. vLLM's own flat lists in place of the first
step are there for comparison.

    .venv/bin/python -m tests.benchmarks.ceiling
"""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_data import part_file, trace_store, trace_table
from distill_data.models import load_tokenizer, resolve_model
from distill_data.teacher_config import Sampling, SoftLabelSelection
from distill_data.teachers import outcomes, vllm_engine
from distill_data.teachers.base import Completion
from distill_data.teachers.logprob_rows import LogprobRows
from distill_data.teachers.outcomes import Wanted, outcome_of, traces_of
from distill_data.teachers.rendering import RenderedPrompt
from distill_data.trace_store import TraceStore
from tests.benchmarks.report import Result, parser, publish
from tests.benchmarks.stopwatch import Stopwatch
from tests.benchmarks.workload import PACKAGED_MODEL, long_tailed_lengths

WIDTHS = [20, 64]
GOAL = 300_000  # tokens/s at the first width
RUNNING = 64  # requests in the engine at once
FLUSH_ROWS = 256
SHARPNESS = 1.6  # mean exponent of p ~ rank ** -exponent; keeps about as many tokens as SmolLM2-135M does
STEPS = {
    "convert": "convert: engine rows to arrays",
    "select": "select: the support of every token",
    "decode": "decode: token ids to text",
    "digest": "digest: of every trace's content",
    "pack": "pack: traces to an Arrow table",
    "encode": "encode: Parquet, zstd",
    "hash": "hash: of the file and its index",
    "write": "write: file, fsync, rename",
    "rest": "rest",
}
LISTS = "vllm_lists"  # key of the comparison


class StepLogprobs(NamedTuple):
    """As `vllm.v1.outputs.LogprobsLists`: rows [token, likeliest 1 … likeliest K] of one step."""

    logprob_token_ids: np.ndarray  # int32 [N, K + 1]
    logprobs: np.ndarray  # float32 [N, K + 1]
    sampled_token_ranks: np.ndarray  # int64 [N]
    cu_num_generated_tokens: None = None


@dataclass
class StepOutput:
    """What is read of a `vllm.v1.engine.EngineCoreOutput`: one request's rows of one step."""

    new_logprobs: StepLogprobs
    new_prompt_logprobs_tensors: None = None
    prompt_token_id_logprobs: None = None


@dataclass(frozen=True)
class Batch:
    """Requests that finished and become one part, with the rows of all steps that they ran in."""

    wanted: list[Wanted]
    token_ids: list[list[int]]  # per request
    owners: np.ndarray  # int64 [R]: the request that a row is of
    step_ends: list[int]  # where in the rows each step ends
    rows: StepLogprobs

    def steps(self) -> Iterator[tuple[list[int], list[StepOutput]]]:
        """As the engine hands them over: arrays of a step just written, a slice for each request that runs."""
        start = 0
        for end in self.step_ends:
            ids, logprobs, ranks = (array[start:end].copy() for array in self.rows[:3])
            slices = (slice(at, at + 1) for at in range(end - start))
            outputs = [StepOutput(StepLogprobs(ids[at], logprobs[at], ranks[at])) for at in slices]
            yield self.owners[start:end].tolist(), outputs
            start = end


def make_batch(lengths: np.ndarray, width: int, vocabulary: int, seed: int) -> Batch:
    """Requests with distributions of all degrees of sharpness and token ids as uneven as those of a language."""
    random = np.random.default_rng(seed)
    owners, step_ends = _schedule(lengths.tolist())
    names = np.random.default_rng(0).permutation(vocabulary).astype(np.int32)
    ids = names[np.floor(vocabulary ** random.random((len(owners), width + 1))).astype(np.int64) - 1]
    ids[:, 0] = ids[:, 1]  # the sampled token is mostly the likeliest
    top = _logprobs(random, len(owners), width, vocabulary).astype(np.float32)
    prompt = RenderedPrompt(random.integers(0, vocabulary, 60).tolist(), "<|im_start|>assistant\n")
    return Batch(
        wanted=[
            Wanted(number, f"{seed:08x}{number:016x}", 0, prompt, Sampling(max_tokens=length))
            for number, length in enumerate(lengths.tolist())
        ],
        token_ids=[ids[owners == number, 0].tolist() for number in range(len(lengths))],
        owners=owners,
        step_ends=step_ends,
        rows=StepLogprobs(ids, np.concatenate([top[:, :1], top], axis=1), np.zeros(len(owners), np.int64)),
    )


def _schedule(lengths: list[int]) -> tuple[np.ndarray, list[int]]:
    """Whose row is where when RUNNING requests run at once and the next takes the place of one that is done."""
    places = [0] * RUNNING  # the step at which each is free
    steps, owners = [], []
    for number, tokens in enumerate(lengths):
        start = heapq.heappop(places)
        heapq.heappush(places, start + tokens)
        steps.append(np.arange(start, start + tokens))
        owners.append(np.full(tokens, number))
    step, owner = np.concatenate(steps), np.concatenate(owners)
    return owner[np.argsort(step, kind="stable")], np.cumsum(np.bincount(step)).tolist()


def _logprobs(random: np.random.Generator, tokens: int, width: int, vocabulary: int) -> np.ndarray:
    """Natural log-probabilities of the `width` likeliest of p ~ rank ** -exponent with noise: float [tokens, width]."""
    exponents = np.clip(random.gamma(2.0, SHARPNESS / 2.0, (tokens, 1)), 0.3, 12.0)
    ranks = np.arange(1, width + 1)
    scores = -exponents * np.log(ranks) + random.normal(0.0, 0.1, (tokens, width))
    scores = -np.sort(-scores, axis=1)
    beyond = np.geomspace(width + 1, vocabulary, 32)  # the tail's mass, by steps
    steps = np.diff(beyond, append=vocabulary)
    tail = (np.exp(-exponents * np.log(beyond)) * steps).sum(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True) + tail)


def replay(batches: list[Batch], width: int, tokenizer: Any, folder: Path) -> dict[str, float]:
    """Store all requests in a fresh folder; seconds per step of STEPS."""
    store = TraceStore(folder, "ceiling")
    store.folder.mkdir(parents=True)
    selection = SoftLabelSelection(max_support=width)
    with Stopwatch() as watch:
        _time_steps(watch, tokenizer)
        with watch.of("rest"):
            for batch in batches:
                completions = convert(batch, width, watch)
                finished = [outcome_of(w, c, selection) for w, c in zip(batch.wanted, completions, strict=True)]
                store.commit(traces_of(finished, tokenizer))
    assert len(store.index()) == sum(len(batch.wanted) for batch in batches)
    return {step: watch.seconds[step] for step in STEPS}


def _time_steps(watch: Stopwatch, tokenizer: Any) -> None:
    watch.time(outcomes, "select_support", "select")
    watch.time(type(tokenizer), "decode", "decode")
    watch.time(trace_table, "content_digest", "digest")
    watch.time(trace_store, "traces_to_table", "pack")
    watch.time(part_file, "encode", "encode")
    watch.time(part_file, "_hash", "hash")
    watch.time(part_file, "_values_hash", "hash")
    watch.time(trace_store, "place", "write")


def convert(batch: Batch, width: int, watch: Stopwatch) -> list[Completion]:
    """As `vllm_engine` does: a row for every running request at every step, arrays at the end."""
    rows = [LogprobRows(width) for _ in batch.wanted]
    _run(batch, rows, watch)
    with watch.of("convert"):
        return [
            vllm_engine._completion(wanted.request_id, "length", np.array(token_ids, np.int32), row.arrays())
            for wanted, token_ids, row in zip(batch.wanted, batch.token_ids, rows, strict=True)
        ]


def flat_lists(batches: list[Batch], width: int) -> float:
    """Seconds of the same conversion with vLLM's own flat lists, each made an array at the end."""
    from vllm.logprobs import FlatLogprobs
    from vllm.v1.engine.logprobs import LogprobsProcessor

    with Stopwatch() as watch:
        for batch in batches:
            rows: list[Any] = [LogprobsProcessor(None, FlatLogprobs(), None, 0.0, width, None) for _ in batch.wanted]
            _run(batch, rows, watch)
            with watch.of("convert"):
                for row in rows:
                    np.array(row.logprobs.token_ids, np.int32).reshape(-1, width + 1)
                    np.array(row.logprobs.logprobs, np.float32).reshape(-1, width + 1)
    return watch.seconds["convert"]


def _run(batch: Batch, rows: Sequence[Any], watch: Stopwatch) -> None:
    """Every step gives rows to the requests that run. What the engine does to make them is not counted."""
    with watch.of("engine"):
        for owners, outputs in batch.steps():
            with watch.of("convert"):
                for owner, output in zip(owners, outputs, strict=True):
                    rows[owner].update_from_output(output)


def run(batches: list[Batch], width: int, tokenizer: Any, compare: bool) -> dict[str, float]:
    """One run: microseconds per token of every step, their sum `all`, and `vllm_lists` where they are compared."""
    tokens = sum(len(ids) for batch in batches for ids in batch.token_ids)
    with tempfile.TemporaryDirectory() as folder:
        seconds = replay(batches, width, tokenizer, Path(folder))
    found = {step: 1e6 * spent / tokens for step, spent in seconds.items()}
    found["all"] = sum(found.values())
    if compare:
        some = batches[: max(1, len(batches) // 8)]  # they take long
        found[LISTS] = 1e6 * flat_lists(some, width) / sum(len(ids) for batch in some for ids in batch.token_ids)
    return found


def measure(requests: int, rounds: int, model: str, compare: bool) -> dict[str, Any]:
    """Figures per width: those of the run whose sum is the median. Widths take turns, the first round is left out."""
    tokenizer = load_tokenizer(resolve_model(model))
    groups = np.array_split(long_tailed_lengths(requests), -(-requests // FLUSH_ROWS))
    work = {
        width: [make_batch(lengths, width, len(tokenizer), seed) for seed, lengths in enumerate(groups)]
        for width in WIDTHS
    }
    runs: dict[int, list[dict[str, float]]] = {width: [] for width in WIDTHS}
    for number in range(rounds + 1):
        for width in WIDTHS:
            found = run(work[width], width, tokenizer, compare and number > 0)
            runs[width] += [found] if number else []
    return {f"k{width}": _figures(runs[width], work[width]) for width in WIDTHS}


def _figures(runs: list[dict[str, float]], batches: list[Batch]) -> dict[str, Any]:
    middle = sorted(runs, key=lambda found: found["all"])[len(runs) // 2]
    logprobs = np.concatenate([batch.rows.logprobs[:, 1:] for batch in batches])
    return {
        "tokens": len(logprobs),
        "mean_support": float((logprobs >= np.log(SoftLabelSelection().min_prob)).sum(axis=1).mean()),
        "tokens_per_second": 1e6 / middle["all"],
        "tokens_per_second_of_runs": [1e6 / found["all"] for found in runs],
        "microseconds_per_token": middle,
    }


def result_of(figures: dict[str, Any], rounds: int) -> Result:
    """The table: a line per step, two columns per width."""
    spent = [figures[f"k{width}"]["microseconds_per_token"] for width in WIDTHS]
    rows = [
        [label, *(cell for found in spent for cell in (f"{found[step]:.2f}", f"{found[step] / found['all']:.0%}"))]
        for step, label in {**STEPS, "all": "all"}.items()
    ]
    rows.append(["tokens/s on one core", *(cell for found in spent for cell in (f"{1e6 / found['all']:,.0f}", ""))])
    if LISTS in spent[0]:
        rows.append(
            ["vLLM's flat lists instead of convert", *(c for found in spent for c in (f"{found[LISTS]:.2f}", ""))]
        )
    support = ", ".join(f"{figures[f'k{width}']['mean_support']:.0f} of {width}" for width in WIDTHS)
    return Result(
        name="ceiling",
        title="Ceiling: finished requests from memory to committed parts, on one core",
        headline="One core stores "
        + " and ".join(
            f"{1e6 / found['all']:,.0f} tokens/s at k = {width}" for width, found in zip(WIDTHS, spent, strict=True)
        )
        + f" (goal {GOAL:,} at k = {WIDTHS[0]}).",
        header=["step", *(cell for width in WIDTHS for cell in (f"k = {width}: us/token", "share"))],
        rows=rows,
        figures=figures,
        note=f"Medians of {rounds} alternated runs; kept per token on average: {support}.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--requests", type=int, default=2048)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--model", default=PACKAGED_MODEL, help="whose tokenizer decodes")
    options.add_argument("--without-vllm", action="store_true", help="leave out the comparison with vLLM's lists")
    chosen = options.parse_args(arguments)
    os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        figures = measure(chosen.requests, chosen.rounds, chosen.model, not chosen.without_vllm)
    finally:
        os.sched_setaffinity(0, cores)
    publish(result_of(figures, chosen.rounds), chosen.out)


if __name__ == "__main__":
    main()
