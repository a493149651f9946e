"""A real Prefect server with its scheduler and automations, `distill-data serve` on it, and long jobs to run there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from distill_data.trace_store import TraceStore
from flows.server import is_healthy

QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "WARNING"}
SERVER = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",  # a queued run asks again so often, not every 30
}
NEVER = "0 3 1 1 *"  # once a year: runs are started by hand
Serve = Callable[..., "Served"]


def wait_for(what: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server of its own, with all services; the API's URL."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
    environment = clean_environment() | QUIET | {"PREFECT_HOME": str(home), **SERVER}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: server.poll() is not None or is_healthy(url), 300)
        assert server.poll() is None, (home / "log").read_text()
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
    finally:
        kill_group(server)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}


def kill_group(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


class Served:
    """A `distill-data serve` at work."""

    def __init__(self, process: subprocess.Popen[str], deployment: UUID) -> None:
        self.process, self.deployment = process, deployment

    def start_run(self) -> UUID:
        """Start a run now, as the UI's button does."""
        with get_client(sync_client=True) as client:
            return client.create_flow_run_from_deployment(self.deployment).id

    def runs(self) -> list[FlowRun]:
        return runs_of(self.deployment)

    def engine(self) -> psutil.Process:
        """The process of the run that is at work."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if "prefect.engine" in " ".join(_command(child)))

    def pause_workers(self) -> list[psutil.Process]:
        """Suspend the teachers of the run that is at work: however fast the machine is, it stays in its middle."""
        children = self.engine().children()
        workers = [child for child in children if "distill_data.teachers" in " ".join(_command(child))]
        assert workers
        for worker in workers:
            worker.suspend()
        return workers


def runs_of(deployment: UUID) -> list[FlowRun]:
    """Its runs, those too that are due later."""
    wanted = FlowRunFilter.model_validate({"deployment_id": {"any_": [deployment]}})
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=wanted)


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def artifacts(key: str) -> list[Artifact]:
    """What Prefect shows under a key, latest first."""
    wanted = ArtifactFilter.model_validate({"key": {"any_": [key]}})
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.UPDATED_DESC)


def read_run(run: UUID) -> FlowRun:
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run)


def ended(run: UUID, seconds: float = 300) -> FlowRun:
    """The run once it has come to its end."""

    def state() -> FlowRun | None:
        found = read_run(run)
        return found if found.state is not None and found.state.is_final() else None

    return wait_for(state, seconds)


def state_of(run: FlowRun) -> tuple[str, str]:
    assert run.state is not None
    return run.state.name or "", run.state.message or ""


@pytest.fixture
def serve(api: str, tmp_path: Path) -> Iterator[Serve]:
    """Start `distill-data serve` on a config."""
    running: list[subprocess.Popen[str]] = []

    def start(job: dict[str, Any], *options: str, **environment: str) -> Served:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(job), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "distill_data.cli", "serve", str(config), "--json", *options],
            env=clean_environment()
            | QUIET
            | {"PREFECT_API_URL": api, "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
            | environment,
            stdout=subprocess.PIPE,
            stderr=(tmp_path / "serve.log").open("ab"),
            text=True,
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        text = ""
        for line in lines:
            text += line
            if line == "}\n":
                break
        document = json.loads(text)
        return Served(process, UUID(document["deployment"]))

    yield start
    for process in running:
        kill_group(process)


def store_of(job: dict[str, Any]) -> TraceStore:
    return TraceStore(job["root"], next(Path(job["root"], "traces").iterdir()).name)


def make_long(job: dict[str, Any], samples: int = 100) -> None:
    """The job as thousands of traces, one at a time, with a part every 20."""
    job["teacher"] |= {"sampling": {"samples": samples}, "engine": {"max_model_len": 256, "max_num_seqs": 1}}
    job["storage"] = {"flush_rows": 20}


def parts(job: dict[str, Any]) -> list[Path]:
    return list(Path(job["root"]).glob("traces/*/part-*.parquet"))
