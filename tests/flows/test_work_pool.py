"""The project's prefect.yaml in a work pool, by README's commands: real server, real worker, replayed teacher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
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
from flows.deployments import SILENCE, crash_automation, declare
from tests.flows.scheduling import (
    QUIET,
    api,
    clean_environment,
    ended,
    kill_group,
    make_long,
    parts,
    read_run,
    runs_of,
    state_of,
    store_of,
    wait_for,
)
from tests.pool.replay_job import committed

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
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start README's worker, in the project's folder."""
    running: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--limit", "1"]
        with (tmp_path / "worker.log").open("wb") as log:
            running.append(
                subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log, start_new_session=True)
            )
        return running[-1]

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


def is_teacher(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "distill_data.teachers" in " ".join(process.cmdline())
    return False


def deployment() -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(DEPLOYMENT)


def at_work() -> FlowRun:
    """The run that was started by hand last and has not ended."""
    runs = [run for run in runs_of(deployment().id) if not run.auto_scheduled]
    return next(run for run in runs if run.state is not None and not run.state.is_final())


def run_of(which: UUID, is_wanted: Callable[[FlowRun], Any]) -> FlowRun:
    """The run of a deployment that is wanted, once it has come to its end."""
    found = wait_for(lambda: [run for run in runs_of(which) if is_wanted(run)], 300)
    return ended(found[0].id, 400)


def test_a_worker_does_what_is_started_by_hand_and_what_the_clock_says(
    job: dict[str, Any], prefect: Prefect, worker: Callable[[], Any], tmp_path: Path
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


def test_a_run_whose_machine_went_down_is_found_and_the_next_goes_on(
    job: dict[str, Any],
    prefect: Prefect,
    worker: Callable[[], subprocess.Popen[bytes]],
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    del job["student"]
    make_long(job)
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(job), encoding="utf-8")
    prefect("work-pool", "create", "gpu", "--type", "process", "--overwrite")
    prefect("--no-prompt", "deploy", "--name", "nightly")
    subprocess.run([sys.executable, "-m", "flows.deployments"], cwd=PROJECT, env=environment, check=True)
    with get_client(sync_client=True) as client:
        client.pause_deployment(deployment().id)
        (found,) = client.read_automations_by_name(crash_automation().name)
    assert found.trigger.within == SILENCE  # pyright: ignore
    declare(crash_automation(silence=timedelta(seconds=40)))  # of a heartbeat every 30 s: a shorter wait
    machine = worker()
    prefect("deployment", "run", DEPLOYMENT, "--param", f'config="{config}"')
    run = at_work()
    wait_for(lambda: parts(job), 300)
    teachers = [child for child in psutil.Process(machine.pid).children(recursive=True) if is_teacher(child)]
    for teacher in teachers:
        teacher.suspend()  # however fast the machine is, the run stays in its middle
    time.sleep(45)  # longer than silence may be: a run that is at work says so in time
    assert teachers and state_of(read_run(run.id))[0] == "Running"
    kill_group(machine)  # with the run's own process
    for teacher in teachers:
        with suppress(psutil.NoSuchProcess):
            teacher.kill()
    name, message = state_of(ended(run.id, 150))
    assert name == "Crashed" and message.startswith("no heartbeat for 40 s: its process was killed")
    before = set(committed(store_of(job)))
    worker()
    prefect("deployment", "run", DEPLOYMENT, "--param", f'config="{config}"')
    again = at_work()
    assert state_of(ended(again.id, 400))[0] == "Completed"
    made = committed(store_of(job))
    assert before <= set(made) and set(made.values()) == {1}
