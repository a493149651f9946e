"""What does `distill-data build` do until the first completion token is there, and for how long?

Every run is the command line with a fresh root and warm caches, with the early start of the engine and, in turn,
without it.

    .venv/bin/python -m tests.benchmarks.first_token
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.hooks import environment
from tests.benchmarks.report import PROJECT, Result, parser, publish

CONFIG = PROJECT / "configs" / "quickstart.yaml"
PATIENCE = 300.0  # seconds until there is a token
# What each stretch of time went to: its last mark, the mark that it began at, and its name.
FLOW = [
    ("imported", "command", "command: python and imports"),
    ("early start", "imported", "command: model looked up, worker started"),
    ("prefect imported", "early start", "command: import of Prefect and flows"),
    ("in the flow", "prefect imported", "command: Prefect server"),
    ("prompts", "in the flow", "command: prompts"),
    ("plan", "prompts", "command: plan"),
    ("check", "plan", "command: check"),
]
WORKER = [
    ("worker python", "spawn", "worker: python"),
    ("worker imported", "worker python", "worker: imports"),
    ("worker vllm", "worker imported", "worker: import of vLLM"),
    ("worker engine", "worker vllm", "worker: engine loads"),
    ("worker ready", "worker engine", "worker: proof that it works"),
    ("worker request", "worker ready", "worker: waits for its first prompt"),
    ("first token", "worker request", "worker: first token"),
]
VARIANTS = {"early": "yes", "late": "no"}


def time_build(root: Path, prefect_home: Path, early: str) -> dict[str, float]:
    """Seconds since the command was started, by mark; the build is interrupted once there is a token."""
    marks = root / "marks.txt"
    hooks = environment(
        "first_token",
        DISTILL_DATA_MARKS=str(marks),
        DISTILL_DATA_EARLY_START=early,
        PREFECT_HOME=str(prefect_home),
    )
    command = [str(Path(sys.executable).with_name("distill-data")), "build", str(CONFIG), "--set", f"root={root}"]
    began = time.time()
    with (root / "errors.txt").open("wb") as errors:
        build = subprocess.Popen(command, cwd=PROJECT, env=hooks, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        found = _wait_for_token(build, marks, root / "errors.txt")
    finally:
        build.send_signal(signal.SIGINT)
        build.wait(PATIENCE)
    return {"command": 0.0, **{name: at - began for name, at in found.items()}}


def _wait_for_token(build: subprocess.Popen[bytes], marks: Path, errors: Path) -> dict[str, float]:
    deadline = time.monotonic() + PATIENCE
    while True:
        lines = marks.read_text().splitlines() if marks.exists() else []
        found = {name: float(at) for at, _, name in (line.partition(" ") for line in lines)}
        if "first token" in found:
            return found
        if build.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"there was no token: {errors.read_text()[-2000:]}")
        time.sleep(0.05)


def stretches(at: dict[str, float]) -> dict[str, dict[str, float]]:
    """When every stretch began and how long it took; one that this run did not have is left out."""
    at = {"early start": at["imported"], **at}  # the late variant goes on at once
    return {
        name: {"at": at[begin], "seconds": at[end] - at[begin]}
        for end, begin, name in [*FLOW, *WORKER]
        if at[end] > at[begin]
    }


def measure(rounds: int) -> dict[str, list[dict[str, float]]]:
    """Marks of every run, by variant; one run beforehand warms the caches."""
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "prefect"
        for number in range(-1, rounds * len(VARIANTS)):
            variant = list(VARIANTS)[number % len(VARIANTS)]
            root = Path(name) / "root"
            root.mkdir()
            found = time_build(root, home, VARIANTS[variant])
            shutil.rmtree(root)
            runs[variant] += [found] if number >= 0 else []
    return runs


def figures_of(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of every stretch and of the whole, by variant."""
    figures: dict[str, Any] = {}
    for variant, found in runs.items():
        split = [stretches(at) for at in found]
        figures[variant] = {
            "first_token_seconds": median(at["first token"] for at in found),
            "first_token_seconds_of_runs": [at["first token"] for at in found],
            "stretches": {
                name: {key: median(run[name][key] for run in split) for key in ("at", "seconds")}
                for *_, name in [*FLOW, *WORKER]
                if all(name in run for run in split)
            },
        }
    return figures


def result_of(figures: dict[str, Any], rounds: int) -> Result:
    """The table: a line per stretch; the command's and the worker's overlap."""
    rows = []
    for *_, name in [*FLOW, *WORKER]:
        cells = []
        for variant in VARIANTS:
            found = figures[variant]["stretches"].get(name)
            cells += ["", ""] if found is None else [f"{found['at']:.1f}", f"{found['seconds']:.1f}"]
        rows.append([name, *cells])
    totals = [f"{figures[variant]['first_token_seconds']:.1f}" for variant in VARIANTS]
    rows.append(["first token there", totals[0], "", totals[1], ""])
    return Result(
        name="first_token",
        title="From `distill-data build` to the first completion token, in seconds",
        headline=f"The first token of `distill-data build` is there after {totals[0]} s; {totals[1]} s where the "
        "engine is started only when the prompts have been read.",
        header=["", "early start: at", "takes", "without: at", "takes"],
        rows=rows,
        figures=figures,
        note=f"Quickstart's config, fresh root, warm caches; medians of {rounds} alternated runs each. The command and "
        "the worker run side by side.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args(arguments)
    publish(result_of(figures_of(measure(chosen.rounds)), chosen.rounds), chosen.out)


if __name__ == "__main__":
    main()
