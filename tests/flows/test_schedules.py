"""Schedules on a real Prefect server with its scheduler, runner and automations; the teacher is replayed."""

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
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from distill_data import open_corpus
from distill_data.corpus.versions import list_tags, list_versions
from distill_data.trace_store import TraceStore
from flows.deployments import crash_automation, declare
from flows.server import is_healthy, prefect_server
from tests.pool.replay_job import committed

QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "WARNING"}
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
    environment = clean_environment() | QUIET | {"PREFECT_HOME": str(home), "PREFECT_SERVER_UI_ENABLED": "false"}
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
        deployment = FlowRunFilter.model_validate({"deployment_id": {"any_": [self.deployment]}})
        with get_client(sync_client=True) as client:
            return client.read_flow_runs(flow_run_filter=deployment)

    def engine(self) -> psutil.Process | None:
        """The process of the run that is at work."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        found = [child for child in children if "prefect.engine" in " ".join(_command(child))]
        return found[0] if found else None


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


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


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's URL, and what it is told."""
    told: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-hook", told
    server.shutdown()
    server.server_close()


def store_of(job: dict[str, Any]) -> TraceStore:
    return TraceStore(job["root"], next(Path(job["root"], "traces").iterdir()).name)


def add_prompts(job: dict[str, Any], first: int, count: int) -> None:
    with Path(job["prompts"][0]["path"]).open("a", encoding="utf-8") as file:
        for number in range(first, first + count):
            file.write(json.dumps({"question": f"{number} mod 4?", "answer": str(number % 4)}) + "\n")


def make_long(job: dict[str, Any]) -> None:
    """The job as thousands of traces, one at a time, with a part every 20."""
    job["teacher"] |= {"sampling": {"samples": 100}, "engine": {"max_model_len": 256, "max_num_seqs": 1}}
    job["storage"] = {"flush_rows": 20}


def parts(job: dict[str, Any]) -> list[Path]:
    return list(Path(job["root"]).glob("traces/*/part-*.parquet"))


def test_a_server_is_started_where_none_is_named_and_ends_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.server.PORT", free_port())
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), prefect_server(tmp_path) as url:
        assert is_healthy(url) and PREFECT_API_URL.value() == url
        with prefect_server(tmp_path) as named:
            assert named == url
        with temporary_settings(restore_defaults={PREFECT_API_URL}), prefect_server(tmp_path) as found:
            assert found == url
        assert is_healthy(url)
    assert not is_healthy(url)


def test_a_cron_fires_and_only_what_is_new_is_done(job: dict[str, Any], serve: Serve) -> None:
    del job["student"]
    served = serve(job, "--cron", "* * * * *")
    first = ended(wait_for(lambda: [run for run in served.runs() if run.start_time], 300)[0].id)
    assert first.auto_scheduled and state_of(first)[0] == "Completed"
    assert state_of(first)[1].startswith("arithmetic@v1 is new; ") and "160 traces generated" in state_of(first)[1]
    assert list_tags(job["root"], "arithmetic") == {"stable": 1}

    logs = sorted(Path(job["root"], "logs").glob("worker-*"))
    nothing_new = ended(served.start_run())
    assert state_of(nothing_new)[1].startswith("arithmetic@v1 is up to date: nothing new; ")
    assert nothing_new.total_run_time < timedelta(seconds=30)
    assert sorted(Path(job["root"], "logs").glob("worker-*")) == logs  # no engine was started
    assert list_versions(job["root"], "arithmetic") == [1]

    add_prompts(job, 40, 5)
    more = ended(served.start_run())
    assert state_of(more)[1].startswith("arithmetic@v2 is new; ") and "20 traces generated" in state_of(more)[1]
    assert open_corpus("arithmetic@stable", job["root"]).version == 2


def test_a_killed_run_is_told_of_and_the_next_goes_on_with_it(
    job: dict[str, Any], serve: Serve, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    del job["student"]
    url, told = webhook
    job["schedule"] = {"cron": NEVER, "notify": "HOOK"}
    make_long(job)
    served = serve(job, HOOK=url)
    run = served.start_run()
    wait_for(lambda: len(parts(job)) >= 3, 300)
    engine = served.engine()
    assert engine is not None
    workers = [child for child in engine.children() if "distill_data.teachers" in " ".join(_command(child))]
    assert workers
    for worker in workers:
        worker.suspend()  # however fast the machine is, the run is in its middle

    overlapping = ended(served.start_run())  # the first one is still at work
    assert state_of(overlapping) == ("Cancelled", "Deployment concurrency limit reached.")
    assert read_run(run).state.is_running()  # pyright: ignore

    engine.kill()
    for worker in workers:
        worker.resume()
    psutil.wait_procs(workers, timeout=60)  # each commits what it finished
    assert state_of(ended(run))[0] == "Crashed"
    note = wait_for(lambda: told, 60)[0]
    assert (note["deployment"], note["state"]) == ("arithmetic", "Crashed")
    kept = sum(committed(store_of(job)).values())
    assert 0 < kept < 4000

    again = ended(served.start_run(), 240)
    assert state_of(again)[0] == "Completed"
    rows = committed(store_of(job))
    assert len(rows) == 4000 and set(rows.values()) == {1}  # nothing twice
    generated = int(state_of(again)[1].split(" rows, ")[1].split(" traces")[0].replace(",", ""))
    assert generated == 4000 - kept


def test_an_interrupted_serve_ends_its_run_and_pauses_its_schedule(job: dict[str, Any], serve: Serve) -> None:
    del job["student"]
    job["schedule"] = {"cron": NEVER}
    make_long(job)
    served = serve(job)
    run = served.start_run()
    wait_for(lambda: parts(job), 300)
    children = psutil.Process(served.process.pid).children(recursive=True)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(90) == 0
    psutil.wait_procs(children, timeout=60)
    assert not [child for child in children if child.is_running()]
    with get_client(sync_client=True) as client:
        assert client.read_deployment(served.deployment).paused
        again = serve(job)
        assert again.deployment == served.deployment and not client.read_deployment(served.deployment).paused
    assert state_of(read_run(run))[0] == "Crashed"
    assert state_of(ended(again.start_run(), 240))[0] == "Completed"
    assert set(committed(store_of(job)).values()) == {1}


def test_a_failed_gate_reaches_the_webhook_and_ends_the_run(
    job: dict[str, Any], serve: Serve, webhook: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    url, told = webhook
    job |= {"gates": {"min_rows": 10_000}, "schedule": {"cron": NEVER, "notify": "HOOK", "train": True}}
    served = serve(job, HOOK=url)
    run = ended(served.start_run())
    assert state_of(run)[0] == "Failed"
    note = wait_for(lambda: told, 60)[0]
    assert note["state"] == "Failed" and str(run.id) == note["flow_run"]
    assert "GateError: arithmetic@v1 is not promoted: min_rows: " in note["text"]
    assert list_versions(job["root"], "arithmetic") == [1] and list_tags(job["root"], "arithmetic") == {}
    assert not Path(job["root"], "students").exists()
    assert url not in (tmp_path / "config.yaml").read_text() + (tmp_path / "serve.log").read_text()


def test_a_run_that_lost_its_runner_is_found_by_its_silence(job: dict[str, Any], serve: Serve) -> None:
    del job["student"]
    job["schedule"] = {"cron": NEVER}
    make_long(job)
    served = serve(job)
    declare(crash_automation(silence=timedelta(seconds=10)))  # below a heartbeat: so long, the test waits
    run = served.start_run()
    wait_for(lambda: parts(job), 300)
    kill_group(served.process)  # with the run's own process: nobody is left to say so
    name, message = state_of(ended(run, 90))
    assert name == "Crashed" and message.startswith("no heartbeat for 10 s: its process was killed")
    served = serve(job)
    assert state_of(ended(served.start_run(), 240))[0] == "Completed"
    assert set(committed(store_of(job)).values()) == {1}
