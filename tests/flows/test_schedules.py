"""Schedules on a real Prefect server with its scheduler, runner and automations; the teacher is replayed."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from distill_data import open_corpus
from distill_data.corpus.versions import list_tags, list_versions
from flows.deployments import crash_automation, declare
from flows.server import is_healthy, prefect_server
from tests.flows.scheduling import (
    NEVER,
    Serve,
    api,
    artifacts,
    ended,
    free_port,
    kill_group,
    make_long,
    parts,
    read_run,
    serve,
    state_of,
    store_of,
    wait_for,
)
from tests.hub.server import running_hub
from tests.pool.replay_job import committed

__all__ = ["api", "serve"]


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


def add_prompts(job: dict[str, Any], first: int, count: int) -> None:
    with Path(job["prompts"][0]["path"]).open("a", encoding="utf-8") as file:
        for number in range(first, first + count):
            file.write(json.dumps({"question": f"{number} mod 4?", "answer": str(number % 4)}) + "\n")


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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
    engine, workers = served.engine(), served.pause_workers()
    assert wait_for(lambda: 0 < float(str(artifacts("generation")[0].data)) < 100, 60)  # the bar is in its middle too
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


@pytest.mark.long
def test_with_queue_runs_wait_for_the_one_at_work_and_then_take_place(job: dict[str, Any], serve: Serve) -> None:
    del job["student"]
    job["schedule"] = {"cron": NEVER, "overlap": "queue"}
    make_long(job, samples=40)
    served = serve(job)
    run = served.start_run()
    wait_for(lambda: parts(job), 300)
    workers = served.pause_workers()

    queued = [served.start_run() for _ in range(2)]
    for one in queued:
        wait_for(lambda one=one: state_of(read_run(one))[0] == "AwaitingConcurrencySlot", 120)
    assert state_of(read_run(run))[0] == "Running"
    for worker in workers:
        worker.resume()

    done = [ended(one) for one in [run, *queued]]
    assert [state_of(one)[0] for one in done] == ["Completed"] * 3
    spans = sorted((str(one.start_time), str(one.end_time)) for one in done)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    messages = [state_of(one)[1] for one in done]
    assert messages[0].startswith("arithmetic@v1 is new; ")
    assert all(message.startswith("arithmetic@v1 is up to date: nothing new; ") for message in messages[1:])
    assert set(committed(store_of(job)).values()) == {1}


@pytest.mark.long
def test_a_run_that_publishes_links_to_the_revision(job: dict[str, Any], serve: Serve, tmp_path: Path) -> None:
    del job["student"]
    job |= {"publish": {"to": "hf://org/arithmetic"}, "schedule": {"cron": NEVER}}
    token = "hf_" + "plantedSecretPlantedSecret42"
    with running_hub(token) as hub:
        client = {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
        served = serve(job, HF_HUB_OFFLINE="0", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", **client)
        run = ended(served.start_run())
    assert state_of(run)[0] == "Completed", state_of(run)
    repo = hub.repos["org/arithmetic"]
    assert repo.tags == {"v1": repo.head}
    (link,) = artifacts("arithmetic-v1-revision")
    address = f"{hub.url}/datasets/org/arithmetic/tree/v1"
    assert link.data == f"[{address}]({address})"
    assert link.description == f"arithmetic@v1, published as {repo.head}"
    summary = artifacts("arithmetic-run")[0]
    assert summary.flow_run_id == run.id  # on the run's own page, not only on its subflows'
    shown = str(summary.data)
    assert "**Promoted**: `arithmetic@stable`" in shown and "| traces | 160 |" in shown
    assert shown.endswith(f"Published: {address}")


@pytest.mark.long
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


@pytest.mark.long
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
    summary = artifacts("arithmetic-run")[0]
    assert summary.flow_run_id == run.id and "- failed gate min_rows: " in str(summary.data)
    assert not Path(job["root"], "students").exists()
    assert url not in (tmp_path / "config.yaml").read_text() + (tmp_path / "serve.log").read_text()


@pytest.mark.long  # silence takes two minutes
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
