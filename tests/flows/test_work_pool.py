"""The project's prefect.yaml in a work pool, by README's commands: real server, real worker, replayed teacher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from distill_data.corpus.versions import list_tags, list_versions
from tests.flows.scheduling import QUIET, api, clean_environment, ended, kill_group, runs_of, state_of, wait_for

__all__ = ["api"]

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]  # a server, a worker and two runs

PROJECT = Path(__file__).parents[2]
DEPLOYMENT = "distill-data/nightly"
Prefect = Callable[..., list[str]]


@pytest.fixture
def environment(api: str, tmp_path: Path) -> dict[str, str]:
    more = {"PREFECT_API_URL": api, "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    return clean_environment() | QUIET | {"PYTHONDONTWRITEBYTECODE": "1"} | more


@pytest.fixture
def prefect(environment: dict[str, str]) -> Prefect:
    """Run Prefect's own command line in the project's folder; it gives the lines that were printed."""

    def run(*arguments: str) -> list[str]:
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()

    return run


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Start README's worker, in the project's folder."""
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--limit", "1"]
        with (tmp_path / "worker.log").open("wb") as log:
            running.append(
                subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log, start_new_session=True)
            )

    yield start
    for process in running:
        below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        kill_group(process)
        for left in below:
            with suppress(psutil.NoSuchProcess):
                left.kill()


def deployment() -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(DEPLOYMENT)


def run_of(which: UUID, is_wanted: Callable[[FlowRun], Any]) -> FlowRun:
    """The run of a deployment that is wanted, once it has come to its end."""
    found = wait_for(lambda: [run for run in runs_of(which) if is_wanted(run)], 300)
    return ended(found[0].id, 400)


def test_a_worker_does_what_is_started_by_hand_and_what_the_clock_says(
    job: dict[str, Any], prefect: Prefect, worker: Callable[[], None], tmp_path: Path
) -> None:
    del job["student"]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(job), encoding="utf-8")
    before = {name: (PROJECT / name).read_bytes() for name in os.listdir(PROJECT) if (PROJECT / name).is_file()}

    prefect("work-pool", "create", "gpu", "--type", "process")
    prefect("--no-prompt", "deploy", "--name", "nightly")
    deployed = deployment()
    assert (deployed.work_pool_name, deployed.tags) == ("gpu", ["distill-data"])
    assert deployed.global_concurrency_limit is not None and deployed.global_concurrency_limit.limit == 1
    assert [schedule.schedule.cron for schedule in deployed.schedules] == ["0 3 * * *"]  # pyright: ignore
    with get_client(sync_client=True) as client:
        client.pause_deployment(deployed.id)  # should it be three o'clock, the test goes on alone

    worker()
    prefect("deployment", "run", DEPLOYMENT, "--param", f'config="{config}"')
    by_hand = run_of(deployed.id, lambda run: not run.auto_scheduled)
    assert state_of(by_hand)[0] == "Completed", (tmp_path / "worker.log").read_text()
    assert state_of(by_hand)[1].startswith("arithmetic@v1 is new; ") and "160 traces generated" in state_of(by_hand)[1]
    assert by_hand.work_pool_name == "gpu"
    assert list_tags(job["root"], "arithmetic") == {"stable": 1}

    every_minute = ["--cron", "* * * * *", "--param", f'config="{config}"']
    prefect("--no-prompt", "deploy", "--name", "nightly", *every_minute)
    with get_client(sync_client=True) as client:
        client.resume_deployment(deployed.id)
    due = run_of(deployed.id, lambda run: run.auto_scheduled and run.start_time)
    assert state_of(due)[0] == "Completed"
    assert state_of(due)[1].startswith("arithmetic@v1 is up to date: nothing new; ")
    assert list_versions(job["root"], "arithmetic") == [1]
    assert before == {name: (PROJECT / name).read_bytes() for name in before}
