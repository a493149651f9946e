"""What does a teacher on servers cost here? A server's streamed answers to arrays, on one core, without a network.

Answers are those of `vllm serve`, 32 tokens a chunk, with 20 and 64 alternatives a token; beside them the same rows as
an engine in the worker's own process hands them over.

    .venv/bin/python -m tests.benchmarks.server_client
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import httpx2
import numpy as np
import orjson

from distill_data.teacher_config import Sampling
from distill_data.teachers.base import Completion, Request
from distill_data.teachers.completions_api import TOKENS_PER_CHUNK, StreamedRows
from distill_data.teachers.logprob_rows import LogprobRows
from distill_data.teachers.servers import read_stream
from tests.benchmarks.ceiling import make_batch
from tests.benchmarks.report import Result, parser, publish

WIDTHS = (20, 64)
VOCABULARY = 49_152
_LOOP = asyncio.new_event_loop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish."""
    options = parser(__doc__)
    options.add_argument("--tokens", type=int, default=512, help="of a completion")
    options.add_argument("--completions", type=int, default=32)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args(arguments)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        figures = {str(width): measure(width, chosen.tokens, chosen.completions, chosen.rounds) for width in WIDTHS}
    finally:
        os.sched_setaffinity(0, cores)
    publish(_result(figures, chosen), chosen.out)


def measure(width: int, tokens: int, completions: int, rounds: int) -> dict[str, float]:
    """Median microseconds per token of both ways, alternated; the first round is left out."""
    ids, logprobs, _ = make_batch(np.array([tokens]), width, VOCABULARY, 0).rows[:3]
    alternatives = (ids[:, :1] + np.arange(width, dtype=np.int32)) % VOCABULARY  # a dictionary has each id once
    ids = np.concatenate([ids[:, :1], alternatives], axis=1)
    answer = answer_of(ids, logprobs)
    ways: dict[str, Callable[[], Completion | None]] = {
        "server": partial(_read, answer, width),
        "engine": partial(_handed_over, ids, logprobs),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            started = time.process_time()
            for _ in range(completions):
                run()
            seconds[way].append(time.process_time() - started)
    figures = {way: 1e6 * float(np.median(found[1:])) / (tokens * completions) for way, found in seconds.items()}
    return figures | {"bytes_per_token": len(answer) / tokens}


def answer_of(ids: np.ndarray, logprobs: np.ndarray) -> bytes:
    """A stream of chunks, from rows of [token, alternatives]."""
    events = []
    for start in range(0, len(ids), TOKENS_PER_CHUNK):
        rows = slice(start, start + TOKENS_PER_CHUNK)
        names = [[f"token_id:{token}" for token in row] for row in ids[rows].tolist()]
        values = logprobs[rows].astype(float).tolist()
        found = {
            "tokens": [row[0] for row in names],
            "token_logprobs": [row[0] for row in values],
            "top_logprobs": [
                dict(zip(row[1:], value[1:], strict=True)) for row, value in zip(names, values, strict=True)
            ],
            "text_offset": [0] * len(names),
        }
        ended = "length" if rows.stop >= len(ids) else None
        choice = {
            "index": 0,
            "text": "x" * 100,
            "logprobs": found,
            "finish_reason": ended,
            "token_ids": ids[rows, 0].tolist(),
        }
        events.append(b"data: " + orjson.dumps({"id": "cmpl", "object": "text_completion", "choices": [choice]}))
    return b"\n\n".join([*events, b"data: [DONE]\n\n"])


def _read(answer: bytes, width: int) -> Completion:
    request = Request("one", [1], 0, Sampling())
    sent = httpx2.Request("POST", "http://server/v1/completions")
    response = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=answer, request=sent)
    completion: Completion = _LOOP.run_until_complete(read_stream(request, StreamedRows(width))(response))
    return completion


def _handed_over(ids: np.ndarray, logprobs: np.ndarray) -> None:
    rows = LogprobRows(ids.shape[1] - 1)
    for row in range(len(ids)):  # a call per step of the engine
        rows._append(ids[row], logprobs[row])
    rows.arrays()


def _result(figures: dict[str, dict[str, float]], chosen: Any) -> Result:
    rate = {width: 1e6 / found["server"] for width, found in figures.items()}
    rows = [
        ["a server's answer to arrays, us/token", *(f"{found['server']:.1f}" for found in figures.values())],
        ["an engine's rows to arrays, us/token", *(f"{found['engine']:.1f}" for found in figures.values())],
        ["bytes of JSON a token", *(f"{found['bytes_per_token']:,.0f}" for found in figures.values())],
        ["tokens/s of one core", *(f"{one:,.0f}" for one in rate.values())],
    ]
    return Result(
        name="server_client",
        title="Servers: streamed JSON to arrays, on one core",
        headline=f"One core takes in {rate['20']:,.0f} tokens/s from servers at 20 alternatives and {rate['64']:,.0f} "
        f"at 64, {figures['20']['server'] / figures['20']['engine']:.0f} and "
        f"{figures['64']['server'] / figures['64']['engine']:.0f} times what an engine in the worker's process costs.",
        header=["", *(f"{width} alternatives" for width in WIDTHS)],
        rows=rows,
        figures=figures,
        note=f"Medians of {chosen.rounds} alternated runs of {chosen.completions} completions of {chosen.tokens} "
        "tokens, in CPU seconds; no network, no server.",
    )


if __name__ == "__main__":
    main()
