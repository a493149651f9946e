"""One real Ray cluster for all tests of this folder: two nodes of a CPU each, and what tests add."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_data.build import BuildPlan
from tests.pool.replay_job import make_config, plan, write_prompts
from tests.ray.nodes import Nodes

PROMPTS = 200
REAL_TOKENIZER = "# with the real tokenizer"  # see site/sitecustomize.py
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where replay workers of the cluster write down what they finish."""
    return tmp_path_factory.mktemp("ray") / "finished"


@pytest.fixture(scope="package")
def cluster(finished: Path) -> Iterator[Nodes]:
    environment = {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "site"), str(PROJECT)]),
        "IN_WORKERS": str(finished.with_name("code")),
        "FINISHED": str(finished),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    nodes = Nodes(environment)
    try:
        nodes.add()
        yield nodes
    finally:
        nodes.close()


@pytest.fixture
def in_workers(cluster: Nodes, finished: Path) -> Iterator[Callable[[str], object]]:
    """Runs Python code in every worker before it begins."""
    code = finished.with_name("code")
    yield code.write_text
    code.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, finished: Path) -> None:
    """Workers that died are started again at once."""
    monkeypatch.setattr("distill_data.teachers.slot.BACKOFF_SECONDS", 0.01)
    finished.write_text("")


def make_build(root: Path, model: Path, cluster: Nodes | None, count: int = PROMPTS, **ray: Any) -> BuildPlan:
    """A build with two replicas on the cluster, of 2 samples a prompt."""
    prompts = root / "p.jsonl" if (root / "p.jsonl").exists() else write_prompts(root / "p.jsonl", count)
    engine: dict[str, Any] = {"max_num_seqs": 1, "replicas": 2}
    if cluster is not None:
        engine["ray"] = {"address": cluster.address, **ray}
    teacher = {"engine": engine, "prompt_format": "text"}
    return plan(make_config(root, model, prompts, storage={"flush_rows": 8, "shard_size": 7}, teacher=teacher))
