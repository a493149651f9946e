"""What does a build cost on top of the engine? Tokens per second with soft labels, against vLLM alone.

Three ways to generate the same completions with the same engine settings, each in a process of its own and in turn:
- raw: one `LLM.generate` over all prompts, without log-probabilities;
- build: our generation phase, soft labels on, to committed parts;
- drained: `LLM.generate` in batches of max_num_seqs with log-probabilities, made arrays after each, as scripts do.

    .venv/bin/python -m tests.benchmarks.overhead
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from distill_data.build import generate_missing, plan_build
from distill_data.config import Config
from distill_data.prompts import PromptSet
from distill_data.records import table_to_prompts
from distill_data.teachers import vllm_engine
from distill_data.teachers.rendering import render_prompts
from distill_data.teachers.vllm_cpu import configure_cpu
from tests.benchmarks.report import PROJECT, Result, parser, publish
from tests.benchmarks.workload import endless_model, long_tailed_lengths, prompts_of_lengths, quickstart_config

ARMS = {
    "raw": "raw: LLM.generate, no log-probabilities",
    "build": "build: soft labels of up to 64, committed",
    "drained": "drained: batches of 64, 64 log-probabilities",
}
GOAL = 0.95  # of raw


class Raw:
    """VLLM's own `LLM` with exactly the engine arguments and environment that a worker uses, but for one: the top-k."""

    def __init__(self, settings: Config, prompts: PromptSet, logprobs: int | None) -> None:
        """Load the engine and let it answer one request, as a worker does."""
        teacher = settings.teacher
        configure_cpu(teacher.engine, eager=True)
        from vllm import LLM

        self._llm = LLM(block_size=32, **vllm_engine._engine_arguments(Path(teacher.model), teacher, eager=True))
        self._logprobs = logprobs
        asked = table_to_prompts(prompts.table)
        rendered = render_prompts(asked, self._llm.get_tokenizer(), teacher)
        self._requests = [
            ({"prompt_token_ids": prompt.token_ids}, self._params(teacher.sampling.with_overrides(ask.sampling)))
            for prompt, ask in zip(rendered, asked, strict=True)
        ]
        self._generate([({"prompt_token_ids": [1]}, self._params(teacher.sampling.with_overrides({"max_tokens": 1})))])

    def run(self, batch: int | None) -> dict[str, float]:
        """Generate everything, all at once or in batches that drain; tokens and seconds."""
        began = time.perf_counter()
        tokens = 0
        for start in range(0, len(self._requests), batch or len(self._requests)):
            outputs = self._generate(self._requests[start : start + (batch or len(self._requests))])
            tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
            if self._logprobs is not None:
                for output in outputs:
                    to_arrays(output.outputs[0].logprobs, self._logprobs)
        return {"tokens": tokens, "seconds": time.perf_counter() - began}

    def _generate(self, requests: Sequence[tuple[Any, Any]]) -> list[Any]:
        return self._llm.generate(
            [prompt for prompt, _ in requests], [params for _, params in requests], use_tqdm=False
        )

    def _params(self, sampling: Any) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature, max_tokens=sampling.max_tokens, ignore_eos=True, logprobs=self._logprobs
        )


def to_arrays(logprobs: list[dict[int, Any]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest tokens of every position and their log-probabilities, from vLLM's dictionaries."""
    likeliest = [sorted(position.items(), key=lambda item: -item[1].logprob)[:width] for position in logprobs]
    ids = np.array([[token for token, _ in position] for position in likeliest], np.int32)
    return ids, np.array([[entry.logprob for _, entry in position] for position in likeliest], np.float32)


def build(settings: Config, prompts: PromptSet) -> dict[str, float]:
    """Our generation phase: seconds from the engine being ready to the last part and the worker's end."""
    _, report = generate_missing(plan_build(settings, prompts), lambda _: None)
    return {"tokens": report.tokens, "seconds": report.engine_seconds}


def run_arm(arm: str, model: Path, lengths: np.ndarray) -> dict[str, float]:
    """One measurement, in this process."""
    with tempfile.TemporaryDirectory() as root:
        settings = quickstart_config(model, Path(root), len(lengths))
        prompts = prompts_of_lengths(settings, lengths)
        if arm == "build":
            return build(settings, prompts)
        drained = arm == "drained"
        raw = Raw(settings, prompts, settings.teacher.soft_labels.max_support if drained else None)
        return raw.run(settings.teacher.engine.max_num_seqs if drained else None)


def run_in_process(arm: str, model: Path, lengths: np.ndarray) -> float:
    """One measurement in a fresh process: tokens per second.

    Raises:
        SystemExit: it failed, or completions were not as long as they were asked to be.
    """
    command = [sys.executable, "-m", __spec__.name, "--arm", arm, "--model", str(model), "--prompts", str(len(lengths))]
    quiet = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONDONTWRITEBYTECODE": ""}  # imports as users have them
    done = subprocess.run(command, cwd=PROJECT, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm} failed: {done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["tokens"] != lengths.sum():
        raise SystemExit(
            f"{arm} gave {found['tokens']} tokens instead of {lengths.sum()}: a completion ended by itself"
        )
    print(f"{arm}: {found['tokens'] / found['seconds']:.1f} tok/s", file=sys.stderr)
    return found["tokens"] / found["seconds"]


def figures_of(rates: dict[str, list[float]], lengths: np.ndarray) -> dict[str, Any]:
    """Medians; ratios are those of runs beside each other."""
    beside = {arm: [ours / its for ours, its in zip(rates["build"], rates[arm], strict=True)] for arm in rates}
    return {
        "prompts": len(lengths),
        "tokens": int(lengths.sum()),
        "longest": int(lengths.max()),
        "tokens_per_second": {arm: median(found) for arm, found in rates.items()},
        "tokens_per_second_of_runs": rates,
        "build_to_raw": median(beside["raw"]),
        "build_to_drained": median(beside["drained"]),
    }


def result_of(figures: dict[str, Any], rounds: int) -> Result:
    """The table: a line per way."""
    rates, of_runs = figures["tokens_per_second"], figures["tokens_per_second_of_runs"]
    raw, beside = rates["raw"], sorted(map(truediv, of_runs["build"], of_runs["raw"]))
    rows = [
        [name, f"{rates[arm]:.0f}", f"{rates[arm] / raw:.2f}", f"{min(of_runs[arm]):.0f} … {max(of_runs[arm]):.0f}"]
        for arm, name in ARMS.items()
    ]
    return Result(
        name="overhead",
        title="Overhead: generation with soft labels against the engine alone",
        headline=f"A build with soft labels runs at {figures['build_to_raw']:.2f} of the speed of `LLM.generate` "
        f"without them ({beside[0]:.2f} … {beside[-1]:.2f}; goal {GOAL}), {figures['build_to_drained']:.2f} times as "
        "fast as batches that drain.",
        header=["way", "tok/s", "÷ raw", "runs"],
        rows=rows,
        figures=figures,
        note=f"Medians over {rounds} rounds of runs in turn; ratios are those of runs beside each other. SmolLM2-135M, "
        f"{figures['prompts']} prompts, {figures['tokens']:,} tokens, lengths lognormal 16 … {figures['longest']}, "
        "max_num_seqs 64.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=192)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--arm", choices=list(ARMS), help="run only this, in this process, and print its figures")
    options.add_argument("--model", type=Path, help="folder of a model that no token ends, for --arm")
    chosen = options.parse_args(arguments)
    lengths = long_tailed_lengths(chosen.prompts)
    if chosen.arm is not None:
        print(json.dumps(run_arm(chosen.arm, chosen.model, lengths)))
        return
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        model = endless_model(Path(folder) / "model")
        for _ in range(chosen.rounds):
            for arm in ARMS:
                rates[arm].append(run_in_process(arm, model, lengths))
    publish(result_of(figures_of(rates, lengths), chosen.rounds), chosen.out)


if __name__ == "__main__":
    main()
