"""A version to publish, a hub on loopback, and the command line in a process of its own that talks to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.read import Corpus, open_corpus
from tests.hub.server import Hub, running_hub
from tests.unit.corpus.conftest import make_job, make_prompts

__all__ = ["make_job", "make_prompts"]

TOKEN = "hf_" + "plantedSecretPlantedSecret42"
MakeJob = Callable[..., Assembly]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub(TOKEN) as hub:
        yield hub


@pytest.fixture
def corpus(make_job: MakeJob, tmp_path: Path) -> Corpus:
    assemble(make_job(judge={"verifier": "exact"}, keep={"passed_only": True}), lambda progress: None)
    return open_corpus("sums@v1", tmp_path)


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run Python with arguments against the hub."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment | more, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def publish(run: Run, tmp_path: Path) -> Run:
    """`distill-data publish` of the corpus to hf://org/sums."""

    def publish(reference: str = "sums@v1", *options: str, to: str = "hf://org/sums"):
        root = ["--root", str(tmp_path)]
        return run("-m", "distill_data.cli", "publish", reference, "--to", to, *root, *options)

    return publish
