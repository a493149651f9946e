"""A real `vllm serve` on loopback, with the tiny model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.engine.conftest import MAX_MODEL_LEN

SUPPORT = 64
FLAGS = ("--max-logprobs", str(SUPPORT), "--hf-overrides", '{"head_dtype": "float32"}')
START_SECONDS = 900


@dataclass(frozen=True)
class VllmServer:
    """Its address, and the name that it knows the model by."""

    url: str
    model: str


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def vllm_serve(model: Path, log: Path, *flags: str, dtype: str = "float32") -> Iterator[VllmServer]:
    """Start a server and wait until it answers."""
    port = free_port()
    # As `vllm serve`, whose script asks for a package of another name than vLLM has for CPUs.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--dtype", dtype]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(MAX_MODEL_LEN)]
    command += ["--max-num-seqs", "16", "--enforce-eager", "--distributed-executor-backend", "uni", *flags]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "TORCHDYNAMO_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/v1"
        _wait_for(url, process, log)
        yield VllmServer(url, str(model))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            if httpx2.get(f"{url}/models").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.5)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """With the flags that README names."""
    with vllm_serve(tiny_model, tmp_path_factory.mktemp("server") / "log", *FLAGS) as running:
        yield running
