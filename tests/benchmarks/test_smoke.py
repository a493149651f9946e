"""The benchmarks that need no engine run, small, and say what they found; nothing here is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks import ceiling, first_token, kills, memory, overhead, report
from tests.benchmarks.stopwatch import Stopwatch
from tests.benchmarks.workload import long_tailed_lengths


def published(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_ceiling(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--requests", "6", "--rounds", "1", "--without-vllm"]
    ceiling.main([*size, "--model", str(tiny_model), "--out", str(tmp_path)])
    found = published(tmp_path, "ceiling")
    assert found["benchmark"] == "ceiling"
    assert all(found["machine"][key] for key in ("cpu", "cores", "memory_gib", "python", "packages"))
    for width in (20, 64):
        figures = found[f"k{width}"]
        assert figures["tokens"] == long_tailed_lengths(6).sum()
        assert 1 < figures["mean_support"] <= width
        assert figures["tokens_per_second"] > 0
        spent = figures["microseconds_per_token"]
        assert spent.keys() == {*ceiling.STEPS, "all"}
        assert all(value > 0 for value in spent.values())
    printed = capsys.readouterr().out
    assert "| tokens/s on one core" in printed and report.describe(found["machine"]) in printed


def test_ceiling_replays_what_it_was_given() -> None:
    lengths = np.array([5, 1, 3] * 40)
    batch = ceiling.make_batch(lengths, 4, 50, seed=1)
    with Stopwatch() as watch:
        completions = ceiling.convert(batch, 4, watch)
    assert [len(completion.token_ids) for completion in completions] == lengths.tolist()
    assert [completion.token_ids.tolist() for completion in completions] == batch.token_ids
    assert max(np.diff(batch.step_ends, prepend=0)) == ceiling.RUNNING
    for completion in completions:
        assert (np.diff(completion.top_logprobs) <= 0).all()
        assert (np.exp(completion.top_logprobs).sum(axis=1) <= 1.0).all()


def test_memory(tmp_path: Path) -> None:
    memory.main(["--sizes", "600,1200", "--out", str(tmp_path)])
    found = published(tmp_path, "memory")
    assert [size["prompts"] for size in found["sizes"]] == [600, 1200]
    for size in found["sizes"]:
        assert list(size["build"]) == [
            "load prompts", "plan", "look for the version", "start the worker", "generate", "assemble"
        ]  # fmt: skip
        assert list(size["again"]) == ["load prompts", "plan", "look for the version"]
        assert size["flow_peak_mib"] > 50 and size["worker_peak_mib"] > 50
        assert size["microseconds_per_row_early"] > 0 and size["microseconds_per_row_late"] > 0


def test_kills_figures(tmp_path: Path) -> None:
    """The killing itself is tested in tests/crash."""
    done = [kills.Kill("flow", 3, 1), kills.Kill("worker", 9, 12), kills.Kill("worker", 20, 4)]
    report.publish(kills.result_of(done, seconds=6.0, seed=5), tmp_path)
    found = published(tmp_path, "kills")
    assert (found["kills"], found["seed"], found["seconds_per_kill"]) == (3, 5, 2.0)
    assert found["made_again"]["all"] == {"kills": 3, "total": 17, "most": 12}


def test_first_token_figures(tmp_path: Path) -> None:
    marks = ["command", "imported", "early start", "prefect imported", "in the flow", "prompts", "plan", "check"]
    marks += ["spawn", "worker python", "worker imported", "worker vllm", "worker engine", "worker ready"]
    early = {name: float(number) for number, name in enumerate([*marks, "worker request", "first token"])}
    late = {name: at for name, at in early.items() if name != "early start"}
    figures = first_token.figures_of({"early": [early], "late": [late]})
    report.publish(first_token.result_of(figures, rounds=1), tmp_path)
    found = published(tmp_path, "first_token")
    assert found["early"]["first_token_seconds"] == early["first token"]
    assert found["early"]["stretches"]["worker: import of vLLM"] == {"at": early["worker imported"], "seconds": 1.0}
    assert found["early"]["stretches"].keys() - found["late"]["stretches"].keys() == {first_token.FLOW[1][2]}


def test_overhead_figures(tmp_path: Path) -> None:
    rates = {"raw": [100.0, 200.0, 150.0], "build": [96.0, 180.0, 150.0], "drained": [48.0, 60.0, 75.0]}
    figures = overhead.figures_of(rates, long_tailed_lengths(5))
    report.publish(overhead.result_of(figures, rounds=3), tmp_path)
    found = published(tmp_path, "overhead")
    assert found["tokens_per_second"] == {"raw": 150.0, "build": 150.0, "drained": 60.0}
    assert (found["build_to_raw"], found["build_to_drained"]) == (0.96, 2.0)


def test_lengths_have_a_long_tail() -> None:
    lengths = long_tailed_lengths(2000)
    assert lengths.min() == 16 and lengths.max() == 512
    assert np.median(lengths) < lengths.mean()
