"""Does a build of a million prompts fit, and does a row cost the same at its end as at its beginning?

Builds of several sizes with the replay teacher, step by step as `flows/build.py` orders them, each in a process that is
watched from here together with its worker; then the same build again, which finds everything there.

    .venv/bin/python -m tests.benchmarks.memory --sizes 10000,100000,1000000
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from distill_data.build import BuildPlan, assemble_version, existing_version, generate_missing, plan_build
from distill_data.config import Config
from distill_data.prompts import load_prompts
from tests.benchmarks.report import PROJECT, Result, parser, publish
from tests.pool.replay_job import make_config
from tests.tiny_model import make_tiny_model

SIZES = [10_000, 100_000, 1_000_000]
PLANNING_GOAL = 20.0  # seconds for a million
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Sample:
    """Resident memory at one moment, in MiB; `own` is what no file on disk backs."""

    at: float  # of the machine's monotonic clock
    flow: float
    flow_own: float
    worker: float
    worker_own: float


def say(step: str, **facts: Any) -> None:
    """A step begins."""
    print(json.dumps({"step": step, "at": time.monotonic(), **facts}), flush=True)


def build(settings: Config) -> None:
    """In the process that is watched: load, plan, and whatever the plan says is to be done."""
    say("load prompts")
    prompts = load_prompts(list(settings.prompts), settings.teacher.mode)
    say("plan")
    planned = plan_build(settings, prompts)
    say("look for the version")
    if existing_version(planned) is None:
        planned = _generate(planned)
        say("assemble")
        manifest, created = assemble_version(planned, lambda _: None)
        assert created and manifest.counts["traces"] == len(prompts.table), manifest.counts
    say("end", missing=len(planned.plan.missing))


def _generate(planned: BuildPlan) -> BuildPlan:
    ready = False

    def watch(progress: Any) -> None:
        nonlocal ready
        if progress.workers_ready and not ready:
            ready = True
            say("generate")

    say("start the worker")
    planned, report = generate_missing(planned, watch)
    assert report.traces == planned.plan.wanted, report
    return planned


def write_job(folder: Path, model: Path, prompts: int) -> Path:
    """A config of a build with so many different prompts of some 60 characters."""
    folder.mkdir()
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for number in range(prompts):
            question = f"What is {number} + 1? Think step by step, then finish with a line."
            file.write(json.dumps({"question": question, "answer": str(number % 4)}) + "\n")
    teacher = {"sampling": {"samples": 1, "max_tokens": 32}, "engine": {"max_num_seqs": 64}}
    config = make_config(folder / "root", model, folder / "prompts.jsonl", teacher=teacher, judge={"verifier": "exact"})
    (folder / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    return folder / "config.json"


def watch_build(config: Path) -> dict[str, dict[str, float]]:
    """Run the build in a process of its own: seconds and most memory of every step.

    Raises:
        SystemExit: it failed.
    """
    samples: list[Sample] = []
    with tempfile.TemporaryFile("w+") as said:
        command = [sys.executable, "-m", __spec__.name, "--build", str(config)]
        process = subprocess.Popen(command, cwd=PROJECT, stdout=said)
        flow, worker = psutil.Process(process.pid), None
        while process.poll() is None:
            worker = worker or _worker_of(flow)
            samples.append(Sample(time.monotonic(), *_resident(flow), *_resident(worker)))
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"the build of {config} failed")
        said.seek(0)
        steps = [json.loads(line) for line in said]
    return {
        step["step"]: {"seconds": after["at"] - step["at"], **_most(samples, step["at"], after["at"])}
        for step, after in pairwise(steps)
    }


def _worker_of(flow: psutil.Process) -> psutil.Process | None:
    with suppress(psutil.Error):
        for child in flow.children():
            if "distill_data.teachers.worker_process" in child.cmdline():
                return child
    return None


def _resident(process: psutil.Process | None) -> tuple[float, float]:
    if process is not None:
        with suppress(psutil.Error):
            memory = process.memory_info()
            return memory.rss / MEBIBYTE, (memory.rss - memory.shared) / MEBIBYTE
    return 0.0, 0.0


def _most(samples: Sequence[Sample], begin: float, end: float) -> dict[str, float]:
    during = [sample for sample in samples if begin <= sample.at <= end]
    names = ("flow", "flow_own", "worker", "worker_own")
    return {f"{name}_mib": max((getattr(sample, name) for sample in during), default=0.0) for name in names}


def early_and_late(root: Path) -> tuple[float, float]:
    """Microseconds a row while the first and the last tenth of the parts were written, from their files' times."""
    parts = sorted((file.stat().st_mtime_ns, file) for file in root.glob("traces/*/part-*.parquet"))
    tenth = max(1, len(parts) // 10)

    def cost(begin: int, end: int) -> float:
        rows = sum(pq.read_metadata(file).num_rows for _, file in parts[begin + 1 : end + 1])
        return (parts[end][0] - parts[begin][0]) / 1000 / rows

    last = len(parts) - 1
    return cost(0, tenth), cost(last - tenth, last)


def measure(size: int, model: Path) -> dict[str, Any]:
    """Figures of one size: the build, and the same build again."""
    with tempfile.TemporaryDirectory() as folder:
        config = write_job(Path(folder) / "job", model, size)
        first, again = watch_build(config), watch_build(config)
        early, late = early_and_late(config.parent / "root")
    print(f"{size:,} prompts: {sum(step['seconds'] for step in first.values()):.0f} s", file=sys.stderr)
    return {
        "prompts": size,
        "build": first,
        "again": again,
        "microseconds_per_row_early": early,
        "microseconds_per_row_late": late,
        "flow_peak_mib": max(step["flow_mib"] for step in first.values()),
        "worker_peak_mib": max(step["worker_mib"] for step in first.values()),
    }


def result_of(sizes: list[dict[str, Any]]) -> Result:
    """The table: a column per size."""

    def row(label: str, value: Any, form: str) -> list[str]:
        return [label, *(format(value(found), form) for found in sizes)]

    def per_row(step: str) -> Any:
        return lambda found: 1e6 * found["build"][step]["seconds"] / found["prompts"]

    rows = [
        row("read prompts, s", lambda found: found["build"]["load prompts"]["seconds"], ".1f"),
        row("plan, nothing stored, s", lambda found: found["build"]["plan"]["seconds"], ".1f"),
        row("plan, all stored, s", lambda found: found["again"]["plan"]["seconds"], ".1f"),
        row("generate, us/row", per_row("generate"), ".0f"),
        row("… the first tenth, us/row", lambda found: found["microseconds_per_row_early"], ".0f"),
        row("… the last tenth, us/row", lambda found: found["microseconds_per_row_late"], ".0f"),
        row("assemble, us/row", per_row("assemble"), ".0f"),
        row("flow's peak RSS, MiB", lambda found: found["flow_peak_mib"], ".0f"),
        row("… while generating, MiB", lambda found: found["build"]["generate"]["flow_mib"], ".0f"),
        row("… of it its own, no file's, MiB", lambda found: found["build"]["generate"]["flow_own_mib"], ".0f"),
        row("worker's peak RSS, MiB", lambda found: found["worker_peak_mib"], ".0f"),
        row("… of it its own, no file's, MiB", lambda found: found["build"]["generate"]["worker_own_mib"], ".0f"),
    ]
    most = sizes[-1]
    last = most["microseconds_per_row_late"] / most["microseconds_per_row_early"]
    return Result(
        name="memory",
        title="Memory and cost per row of a build with the replay teacher, by number of prompts",
        headline=f"{most['prompts']:,} prompts: planned in {most['again']['plan']['seconds']:.1f} s (goal "
        f"{PLANNING_GOAL:g}), the worker's RSS {most['worker_peak_mib']:.0f} MiB, the flow's at most "
        f"{most['flow_peak_mib']:.0f}; the last tenth of the rows cost {last:.2f} times what the first tenth cost.",
        header=["", *(f"{found['prompts']:,}" for found in sizes)],
        rows=rows,
        figures={"sizes": sizes},
        note="One run of each size; a prompt of some 60 characters, one sample, up to 32 tokens with a support of 4.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=SIZES)
    options.add_argument("--build", type=Path, help="only run this config's build, in this process")
    chosen = options.parse_args(arguments)
    if chosen.build is not None:
        build(Config.model_validate_json(chosen.build.read_text(encoding="utf-8")))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny_model(Path(folder) / "model")
        publish(result_of([measure(size, model) for size in chosen.sizes]), chosen.out)


if __name__ == "__main__":
    main()
