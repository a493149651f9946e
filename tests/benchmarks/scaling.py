"""What do more replicas bring? From one to two with real workers, here and on Ray; to sixteen in virtual time.

The workers are real, their engine is the replay teacher at a fixed token rate, so that two of them do not share what
they are measured by: this is the pipeline's scaling, not the processor's. On Ray each replica has a node (a raylet) of
its own on this machine. In virtual time the real Dispatch gives out a thousand shards.

    .venv/bin/python -m tests.benchmarks.scaling
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from distill_data.build import generate_missing
from distill_data.identity import sampling_seed
from distill_data.teachers.generation import GenerationReport
from tests.benchmarks.dispatch_simulation import Simulation, reasoning_lengths, source_lengths
from tests.benchmarks.hooks import environment
from tests.benchmarks.pace import RATE, tokens_of
from tests.benchmarks.report import Result, parser, publish
from tests.pool.replay_job import make_config, plan, wanted, write_prompts
from tests.ray.nodes import Nodes
from tests.tiny_model import make_tiny_model

TOKENS_PER_SECOND = 2000.0  # of one replica
SHARD_SIZE = 32
ARMS = [("local", 1), ("local", 2), ("Ray", 1), ("Ray", 2)]
GOAL = 0.95
WORKERS, SHARDS, SHARD = 16, 1000, 256
CASES = {  # shard size, deaths an hour of each worker
    "nobody dies": (SHARD, 0.0),
    "each dies once an hour": (SHARD, 1.0),
    "shards of 64, nobody dies": (SHARD // 4, 0.0),
}
AS_PLANNED, LONGEST_FIRST = "sources of 100 to 4,000 tokens, in that order", "the same, the longest first"


def generate(folder: Path, model: Path, prompts: int, replicas: int, address: str | None) -> GenerationReport:
    """One build's generation, in a fresh root."""
    folder.mkdir()
    engine: dict[str, Any] = {"max_num_seqs": 16, "replicas": replicas}
    if address is not None:
        engine["ray"] = {"address": address}
    teacher = {"engine": engine, "prompt_format": "text", "sampling": {"samples": 1, "max_tokens": 64}}
    storage = {"shard_size": SHARD_SIZE, "flush_rows": SHARD_SIZE}
    file = write_prompts(folder / "p.jsonl", prompts)
    build = plan(make_config(folder, model, file, teacher=teacher, storage=storage))
    _, report = generate_missing(build, lambda _: None)
    assert report.traces == prompts and report.restarts == 0
    return report


def nominal_tokens(folder: Path, model: Path, prompts: int) -> int:
    """What all completions are said to be long, together."""
    folder.mkdir()
    build = plan(make_config(folder, model, write_prompts(folder / "p.jsonl", prompts), teacher={"sampling": {}}))
    return sum(tokens_of(sampling_seed(0, prompt, sample)) for prompt, sample in wanted(build))


def measure(folder: Path, prompts: int, rounds: int) -> dict[str, Any]:
    """Seconds of every arm, of runs in turn: with engines up, and of the start before."""
    os.environ.update(environment("paced", **{RATE: str(TOKENS_PER_SECOND)}))
    model = make_tiny_model(folder / "model")
    nodes = Nodes({})
    nodes.add()
    seconds: dict[str, list[float]] = {f"{where} {count}": [] for where, count in ARMS}
    starts: dict[str, list[float]] = {name: [] for name in seconds}
    try:
        for number in range(rounds):
            for where, count in ARMS:
                address = nodes.address if where == "Ray" else None
                report = generate(folder / f"{where}-{count}-{number}", model, prompts, count, address)
                seconds[f"{where} {count}"].append(report.engine_seconds)
                starts[f"{where} {count}"].append(report.seconds - report.engine_seconds)
                print(f"{where} {count}: {report.engine_seconds:.1f} s", file=sys.stderr)
    finally:
        nodes.close()
    tokens = nominal_tokens(folder / "tokens", model, prompts)
    return {"tokens": tokens, "seconds": seconds, "start_seconds": starts}


def simulate(shards: int, workers: int) -> dict[str, Any]:
    """What becomes of each case in virtual time."""
    lengths = reasoning_lengths(shards * SHARD)
    found = {name: Simulation(lengths, size, workers, deaths, 0).run() for name, (size, deaths) in CASES.items()}
    lengths, most_tokens = source_lengths(shards * SHARD)
    found[AS_PLANNED] = Simulation(lengths, SHARD, workers, 0.0, 0).run()
    found[LONGEST_FIRST] = Simulation(lengths, SHARD, workers, 0.0, 0, most_tokens).run()
    return found


def figures_of(measured: dict[str, Any], simulated: dict[str, Any], prompts: int) -> dict[str, Any]:
    """Medians; ratios are those of runs beside each other."""
    of = {name: np.array(runs) for name, runs in measured["seconds"].items()}
    at_best = measured["tokens"] / TOKENS_PER_SECOND
    return {
        "prompts": prompts,
        "tokens_per_second": TOKENS_PER_SECOND,
        **measured,
        "of_the_engines": {
            name: at_best / int(name.split()[1]) / median(runs) for name, runs in measured["seconds"].items()
        },
        "efficiency": {where: median(of[f"{where} 1"] / of[f"{where} 2"] / 2) for where in ("local", "Ray")},
        "ray_to_local": {count: median(of[f"local {count}"] / of[f"Ray {count}"]) for count in (1, 2)},
        "simulated": simulated,
    }


def result_of(figures: dict[str, Any], rounds: int, shards: int, workers: int) -> Result:
    """The table: a line per arm, then one per simulated case."""
    efficiency, ratio = figures["efficiency"], figures["ray_to_local"]
    rows = [
        [
            f"{name.split()[1]} x {'a process here' if name.startswith('local') else 'an actor on Ray'}",
            f"{median(runs):.1f}",
            f"{figures['of_the_engines'][name]:.3f}",
            f"{median(figures['start_seconds'][name]):.1f}",
            "",
        ]
        for name, runs in figures["seconds"].items()
    ]
    calm, stormy = (figures["simulated"][name] for name in list(CASES)[:2])
    for name, found in figures["simulated"].items():
        again = f"{100 * found['made_again_tokens'] / found['tokens']:.1f}% ({found['deaths']} deaths)"
        rows.append(
            [
                f"{workers} x in virtual time: {name}",
                f"{found['seconds']:,.0f}",
                f"{found['efficiency']:.3f}",
                f"{found['tail_seconds']:.0f}",
                again,
            ]
        )
    return Result(
        name="scaling",
        title="Scaling: replicas here, on Ray, and sixteen in virtual time",
        headline=f"Two replicas do {2 * efficiency['local']:.2f} times the work of one (efficiency "
        f"{efficiency['local']:.3f}, on Ray {efficiency['Ray']:.3f}; goal {GOAL}); a replica on Ray is "
        f"{ratio[1]:.3f} times as fast as one here. In virtual time {workers} workers with {shards:,} shards are at "
        f"{calm['efficiency']:.3f} of what their engines can, and at {stormy['efficiency']:.3f} where "
        f"{stormy['deaths']} die on the way.",
        header=["replicas", "seconds", "÷ engines' own rate", "start or tail, s", "made again"],
        rows=rows,
        figures=figures,
        note=f"Medians of {rounds} rounds. Real workers: {figures['prompts']} traces, {figures['tokens']:,} tokens at "
        f"{TOKENS_PER_SECOND:,.0f} a second and replica, shards of {SHARD_SIZE}; seconds count from the first engine "
        "being up, the start is the time before (a replay teacher without transformers). In virtual time: "
        f"{shards * SHARD:,} reasoning traces of 64 … 8,192 tokens, 64 sequences at once at 50 tokens/s each, an "
        "engine that died is up again after 120 s; the tail begins when the first worker has nothing left to "
        "do. The longest trace alone takes 164 s. "
        "Builds give out the longest first where sources differ in `max_tokens`.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=600)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--shards", type=int, default=SHARDS)
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), chosen.prompts, chosen.rounds)
    figures = figures_of(measured, simulate(chosen.shards, WORKERS), chosen.prompts)
    publish(result_of(figures, chosen.rounds, chosen.shards, WORKERS), chosen.out)


if __name__ == "__main__":
    main()
