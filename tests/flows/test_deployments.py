"""What schedules declare, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import jinja2
import pytest
import yaml
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.flows import load_flow_from_entrypoint

from distill_data.config import Config
from distill_data.errors import ConfigError
from distill_data.schedule_config import Schedule
from flows.deployments import (
    COLLISION,
    crash_automation,
    declare,
    declare_for_pool,
    declare_webhook,
    deployment_of,
    notify_automation,
    webhook_url,
)
from flows.scheduled import TAG, scheduled

PROJECT = Path(__file__).parents[2]
NIGHTLY = Schedule(cron="0 3 * * *")


@pytest.mark.parametrize(("overlap", "strategy"), [("skip", "CANCEL_NEW"), ("queue", "ENQUEUE")])
def test_a_deployment_runs_one_at_a_time_when_its_clock_says(
    settings: Config, tmp_path: Path, overlap: str, strategy: str
) -> None:
    schedule = Schedule.model_validate({"cron": "0 3 * * *", "timezone": "Europe/Berlin", "overlap": overlap})
    deployment = deployment_of(settings, schedule, tmp_path / "c.yaml", ["name=x"])
    assert (deployment.name, deployment.concurrency_limit, deployment.tags) == ("arithmetic", 1, [TAG])
    assert deployment.concurrency_options is not None
    assert deployment.concurrency_options.collision_strategy.value == strategy
    assert deployment.parameters == {"config": str(tmp_path / "c.yaml"), "overrides": ["name=x"]}
    assert deployment.schedules is not None
    cron: Any = deployment.schedules[0].schedule
    assert (cron.cron, cron.timezone) == ("0 3 * * *", "Europe/Berlin")
    assert deployment.entrypoint == "flows.scheduled.scheduled"


def test_the_work_pools_deployment_is_that_of_serve() -> None:
    file = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))
    (deployment,) = file["deployments"]
    assert load_flow_from_entrypoint(str(PROJECT / deployment["entrypoint"])).name == scheduled.name
    assert set(deployment["parameters"]) == set(scheduled.parameters.properties)
    assert (PROJECT / deployment["parameters"]["config"]).is_file()
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": COLLISION["skip"].value}
    assert deployment["tags"] == [TAG]
    assert Schedule.model_validate(deployment["schedules"][0])


def test_declaring_again_changes_what_is_there(settings: Config) -> None:
    for _ in range(2):
        declare(crash_automation())
    with get_client(sync_client=True) as client:
        (there,) = client.read_automations_by_name(crash_automation().name)
    assert there.trigger.model_dump(include={"within", "after", "for_each"}) == crash_automation().trigger.model_dump(
        include={"within", "after", "for_each"}
    )


def test_a_webhook_is_told_no_more_once_notify_is_left_out(settings: Config) -> None:
    def declared() -> list[Any]:
        with get_client(sync_client=True) as client:
            return client.read_automations_by_name(notify_automation(settings, uuid4(), uuid4()).name)

    deployment = cast(UUID, deployment_of(settings, NIGHTLY, Path("c.yaml"), []).apply())
    declare_webhook(settings, deployment, None)  # there was none
    declare_webhook(settings, deployment, "https://hooks.example/T0KEN")
    assert len(declared()) == 1
    declare_webhook(settings, deployment, None)
    assert declared() == []
    with pytest.raises(ValueError, match="Unable to find block document"):
        Webhook.load("distill-data-arithmetic")


def test_a_work_pools_failures_are_told_of_too(
    job: dict[str, Any], settings: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pool.yaml"
    config.write_text(yaml.safe_dump(job | {"schedule": {"cron": "0 3 * * *", "notify": "TEAM_HOOK"}}))
    monkeypatch.setenv("TEAM_HOOK", "https://hooks.example/T0KEN")
    deployment = cast(UUID, deployment_of(settings.model_copy(update={"name": "nightly"}), NIGHTLY, config, []).apply())
    declare_for_pool([str(config)])
    with get_client(sync_client=True) as client:
        (told,) = client.read_automations_by_name(notify_automation(settings, uuid4(), uuid4()).name)
        assert client.read_automations_by_name(crash_automation().name)
    assert f"prefect.deployment.{deployment}" in str(told.trigger)


def test_what_a_webhook_is_told_is_json_whatever_the_message_says(settings: Config) -> None:
    (action,) = notify_automation(settings, uuid4(), uuid4()).actions
    environment = jinja2.Environment()
    environment.filters["ui_url"] = lambda run: f"http://ui/{run['id']}"
    message = 'it said "no"\n\\ <b>{{ 1 }}</b> 你好'
    run = {"id": "r1", "state": {"name": "Failed", "message": message}}
    told = json.loads(environment.from_string(action.payload).render(deployment={"name": "sums"}, flow_run=run))  # pyright: ignore
    assert told["text"] == f"distill-data sums: Failed: {message}"
    assert (told["flow_run"], told["page"], told["state"]) == ("r1", "http://ui/r1", "Failed")


def test_a_webhook_that_the_environment_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule(cron="0 3 * * *", notify="TEAM_HOOK")
    monkeypatch.delenv("TEAM_HOOK", raising=False)
    with pytest.raises(ConfigError, match="names the environment variable TEAM_HOOK, which holds no http:// or"):
        webhook_url(schedule)
    monkeypatch.setenv("TEAM_HOOK", "https://hooks.example/T0KEN")
    assert webhook_url(schedule) == "https://hooks.example/T0KEN"
    assert webhook_url(Schedule(cron="0 3 * * *")) is None
