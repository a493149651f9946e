"""What does the student's loss cost, against transformers' own cross-entropy on the same batch?

Forward and backward pass of 6 of SmolLM2-135M's 30 layers with its vocabulary, random weights, float32: seconds a step,
by turns in one process, and peak memory, each in a process of its own.

    .venv/bin/python -m tests.benchmarks.losses --rounds 7
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from distill_data.student.chunked_loss import Labels, head_loss, logits_loss
from distill_data.student.forward import batch_logits, label_hidden, plain_head
from distill_data.student_config import Loss, Objective
from tests.benchmarks.report import PROJECT, Result, parser, publish

SHAPE = {  # SmolLM2-135M's, with 6 of its 30 layers: the loss weighs more than in the whole model
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 6,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
}  # fmt: skip
WIDTH = 64  # of the widest support
TIME_GOAL, MEMORY_GOAL = 1.10, 1.05
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    """A batch, and what is made of it; `granite` is llama with scaled logits, which have to be made whole."""

    traces: int = 4
    prompt: float = 0.0  # share of a trace that has no labels
    part: float = 1.0  # of the length
    model_type: str = "llama"
    objective: Objective = "forward_kl"


CASES = {
    "half of it prompt": Case(prompt=0.5),
    "completion only": Case(),
    "completion only, jsd": Case(objective="jsd"),
    "one short trace": Case(traces=1, part=0.25),
    "scaled logits": Case(model_type="granite"),
}
Step = Callable[[], None]


def make_model(case: Case, shape: Mapping[str, Any]) -> Any:
    """A student with random weights, ready to train."""
    torch.manual_seed(0)
    scaling = {"logits_scaling": 4.0} if case.model_type == "granite" else {}
    config = AutoConfig.for_model(case.model_type, **shape, **scaling)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(DEVICE).train()


def make_batch(case: Case, length: int, vocabulary: int) -> tuple[dict[str, Tensor], Labels]:
    """Random tokens, and supports of 1 to WIDTH random entries that fall off as real ones do."""
    length = max(4, round(length * case.part))
    ids = torch.randint(vocabulary, (case.traces, length))
    positions = torch.arange(length).expand(case.traces, -1)
    mask = (positions >= int(length * case.prompt)) & (positions < length - 1)
    width = min(WIDTH, vocabulary)
    count = int(mask.sum())
    logprobs = (-0.5 - 1.5 * torch.arange(1, width + 1).log()).expand(count, -1)
    absent = torch.arange(width) >= torch.randint(1, width + 1, (count, 1))
    support = torch.randint(vocabulary // width, (count, width)) + vocabulary // width * torch.arange(width)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "label_mask": mask}
    labels = Labels(ids[:, 1:][mask[:, :-1]], support, logprobs.masked_fill(absent, -torch.inf))
    return {name: values.to(DEVICE) for name, values in batch.items()}, Labels(*(one.to(DEVICE) for one in labels))


def make_steps(case: Case, length: int, shape: Mapping[str, Any]) -> dict[str, Step]:
    """One training step without the optimizer, with our loss and with transformers' cross-entropy."""
    model = make_model(case, shape)
    batch, labels = make_batch(case, length, model.config.vocab_size)
    head = plain_head(model)
    assert (head is None) == (case.model_type == "granite")
    targets = torch.full_like(batch["input_ids"], -100)
    targets[:, 1:][batch["label_mask"][:, :-1]] = labels.target_ids

    def ours() -> None:
        if head is None:
            losses = logits_loss(*batch_logits(model, batch), labels, Loss(objective=case.objective))
        else:
            losses = head_loss(label_hidden(model, batch), head, labels, Loss(objective=case.objective))
        losses.total.backward()

    def plain() -> None:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        model(**inputs, labels=targets, use_cache=False).loss.backward()

    def step(backward: Step) -> Step:
        def run() -> None:
            model.zero_grad()
            backward()

        return run

    return {"ours": step(ours), "plain": step(plain)}


def seconds_of(step: Step) -> float:
    """Seconds until a step is through."""
    started = time.perf_counter()
    step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def time_case(case: Case, length: int, shape: Mapping[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step, ours and the plain one by turns, after one of each."""
    steps = make_steps(case, length, shape)
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in sorted(steps, reverse=bool(turn % 2)):
            times[name].append(seconds_of(steps[name]))
    return times


def peak_of(case: Case, length: int, shape: Mapping[str, Any], which: str) -> int:
    """Most bytes of memory during two steps: weights, gradients, activations and loss; in a process of its own."""
    before = psutil.Process().memory_info().rss
    step = make_steps(case, length, shape)[which]
    for _ in range(2):
        step()
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage also knows the parent's peak
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 - before


def peak_in_a_process(name: str, which: str, options: Sequence[str]) -> int:
    """`peak_of` in a new process."""
    command = [sys.executable, "-m", __spec__.name, "--peak", name, which, *options]
    return int(subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def figures_of(times: Mapping[str, Sequence[float]], peaks: Mapping[str, int]) -> dict[str, Any]:
    """Medians and ratios of one case."""
    seconds = {name: median(values) for name, values in times.items()}
    return {
        "seconds": seconds,
        "peak_mib": {name: peak / 2**20 for name, peak in peaks.items()},
        "time_ratio": seconds["ours"] / seconds["plain"],
        "memory_ratio": peaks["ours"] / peaks["plain"],
        "all_seconds": times,
    }


def result_of(cases: Mapping[str, Mapping[str, Any]], length: int, threads: int) -> Result:
    """The table: a row per case."""
    worst_time = max(cases, key=lambda name: cases[name]["time_ratio"])
    worst_memory = max(cases, key=lambda name: cases[name]["memory_ratio"])
    usual = cases["half of it prompt"]
    rows = [
        [
            name,
            *(f"{found['seconds'][which]:.2f}" for which in ("ours", "plain")),
            f"{found['time_ratio']:.2f}",
            *(f"{found['peak_mib'][which]:,.0f}" for which in ("ours", "plain")),
            f"{found['memory_ratio']:.2f}",
        ]
        for name, found in cases.items()
    ]
    return Result(
        name="losses",
        title="The student's loss against transformers' cross-entropy, forward and backward pass",
        headline=f"A step with the distillation loss takes {usual['time_ratio']:.2f} times the time and "
        f"{usual['memory_ratio']:.2f} times the peak memory of transformers' cross-entropy where half of a trace is "
        f"prompt; at worst {cases[worst_time]['time_ratio']:.2f} times the time ({worst_time}; goal "
        f"{TIME_GOAL:.2f}) and "
        f"{cases[worst_memory]['memory_ratio']:.2f} times the memory ({worst_memory}; goal {MEMORY_GOAL:.2f}).",
        header=["batch", "ours, s", "plain, s", "ratio", "ours, MiB", "plain, MiB", "ratio"],
        rows=rows,
        figures={"length": length, "threads": threads, "device": DEVICE, "cases": cases},
        note=f"6 of SmolLM2-135M's 30 layers (with all of them the loss weighs less), float32, {threads} thread(s), 4 "
        f"traces of {length} tokens (the short one: {length // 4}), supports of up to {WIDTH} entries. Medians of "
        "steps by turns; peak memory is the process's, above what it had before the model. `scaled logits` is an "
        "architecture that changes its logits after the head, so that they have to be made whole.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--length", type=int, default=256, help="tokens of a trace")
    options.add_argument("--shape", type=json.loads, default=SHAPE, help="of the model, as JSON")
    options.add_argument("--threads", type=int, default=1, help="more of them wait for each other on a busy machine")
    options.add_argument("--peak", nargs=2, metavar=("CASE", "WHICH"), help="only this, in this process")
    chosen = options.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    if chosen.peak is not None:
        print(peak_of(CASES[chosen.peak[0]], chosen.length, chosen.shape, chosen.peak[1]))
        return
    same = ["--length", str(chosen.length), "--shape", json.dumps(chosen.shape), "--threads", str(chosen.threads)]
    cases = {}
    for name, case in CASES.items():
        times = time_case(case, chosen.length, chosen.shape, chosen.rounds)
        cases[name] = figures_of(times, {which: peak_in_a_process(name, which, same) for which in times})
        print(f"{name}: {cases[name]['time_ratio']:.3f} {cases[name]['memory_ratio']:.3f}", file=sys.stderr)
    publish(result_of(cases, chosen.length, chosen.threads), chosen.out)


if __name__ == "__main__":
    main()
