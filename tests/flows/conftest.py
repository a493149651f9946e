"""One real Prefect server for all flow tests, and a job that the replay teacher does in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flows  # noqa: F401  (quiets Prefect before it is imported)
from distill_data.config import Config
from tests.pool.replay_job import InlinePool


@pytest.fixture(scope="session", autouse=True)
def prefect_server() -> Iterator[None]:
    """A Prefect server with a database of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        yield


@pytest.fixture
def inline_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are in this process: for tests of what comes before and after them, whose starts would take most."""
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> dict[str, Any]:
    """A config tree: 40 arithmetic prompts from a file, judged, and a tiny student."""
    rows = [{"question": f"{n} mod 4?", "answer": str(n % 4)} for n in range(40)]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "name": "arithmetic",
        "root": str(tmp_path / "data"),
        "prompts": [{"source": "dataset", "path": str(prompts), "prompt": "question", "reference": "answer"}],
        "teacher": {
            "model": str(tiny_model),
            "backend": "replay",
            "sampling": {"samples": 4},
            "engine": {"max_model_len": 256},
        },
        "judge": {"verifier": "exact"},
        "keep": {"passed_only": True},
        "validation": {"fraction": 0.2},
        "student": {
            "model": {
                "from_config": {
                    "model_type": "llama",
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                }
            },
            "train": {"steps": 8, "batch_size": 4, "learning_rate": 3e-3},
        },
    }


@pytest.fixture
def settings(job: dict[str, Any]) -> Config:
    """The config of `job`."""
    return Config.model_validate(job)
