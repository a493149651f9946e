"""What `distill-data serve` declares in Prefect: a deployment, and the automations that watch over its runs.

`python -m flows.deployments [CONFIG]` declares the automations alone, for work pools.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect.automations import AutomationCore, CallWebhook, ChangeFlowRunState, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType
from pydantic import SecretStr

from distill_data.config import Config
from distill_data.config_file import load_config
from distill_data.errors import ConfigError
from distill_data.schedule_config import Schedule
from flows.reporting import artifact_key
from flows.scheduled import TAG, scheduled

HEARTBEAT_SECONDS = 30  # Prefect allows no shorter ones
SILENCE = timedelta(seconds=3 * HEARTBEAT_SECONDS)  # after which a run counts as killed
COLLISION = {"skip": ConcurrencyLimitStrategy.CANCEL_NEW, "queue": ConcurrencyLimitStrategy.ENQUEUE}
ENDED = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")}
PAYLOAD = """{"text": {{ ("distill-data " ~ deployment.name ~ ": " ~ flow_run.state.name ~ ": "
 ~ (flow_run.state.message or "no message")) | tojson }}, "deployment": {{ deployment.name | tojson }},
 "state": {{ flow_run.state.name | tojson }}, "flow_run": {{ flow_run.id | string | tojson }},
 "page": {{ flow_run | ui_url | tojson }}}"""


def deployment_of(settings: Config, schedule: Schedule, config: Path, overrides: list[str]) -> RunnerDeployment:
    """The deployment of one config: one run at a time, whatever runs it."""
    made = scheduled.to_deployment(
        name=settings.name,
        schedule=Cron(schedule.cron, timezone=schedule.timezone),
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=COLLISION[schedule.overlap]),
        parameters={"config": str(config.resolve()), "overrides": overrides},
        paused=False,  # a serve that ended before paused it
        description=f"Keeps the corpus {settings.name} up to date.",
        tags=[TAG],
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast(RunnerDeployment, made)  # Prefect's types allow a coroutine too, which only async callers get


def crash_automation(silence: timedelta = SILENCE) -> AutomationCore:
    """Marks a run as crashed whose process is gone with its runner: nobody else could say so.

    Such a run would count as running for ever, and with `overlap: skip` keep every later one away.
    """
    actions: list[Any] = [
        ChangeFlowRunState(
            state=StateType.CRASHED,
            name=None,
            message=f"no heartbeat for {silence.total_seconds():g} s: its process was killed; the next run goes on",
            force=False,
        )
    ]
    return AutomationCore(
        name="distill-data: runs without a heartbeat have crashed",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *ENDED},
            match_related={"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"},  # pyright: ignore
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=silence,
        ),
        actions=actions,
    )


def notify_automation(settings: Config, deployment: UUID, webhook: UUID) -> AutomationCore:
    """Tells a webhook of every run that failed or crashed; a failed gate is a failed run."""
    return AutomationCore(
        name=_notify_name(settings),
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match_related={  # pyright: ignore
                "prefect.resource.role": "deployment",
                "prefect.resource.id": f"prefect.deployment.{deployment}",
            },
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[CallWebhook(block_document_id=webhook, payload=PAYLOAD)],
    )


def _notify_name(settings: Config) -> str:
    return f"distill-data: tell of failures of {settings.name}"


def declare(automation: AutomationCore) -> None:
    """Create an automation, or bring the one of this name up to date."""
    with get_client(sync_client=True) as client:
        if there := client.read_automations_by_name(automation.name):
            client.update_automation(there[0].id, automation)
        else:
            client.create_automation(automation)


def declare_webhook(settings: Config, deployment: UUID, url: str | None) -> None:
    """Have a webhook told of failures; without a URL, no longer the one that a serve before this one declared."""
    block_name = f"{TAG}-{artifact_key(settings.name)}"
    if url is not None:
        block = Webhook(url=SecretStr(url), headers={"Content-Type": "application/json"})  # pyright: ignore
        saved = cast(UUID, block.save(block_name, overwrite=True))
        declare(notify_automation(settings, deployment, saved))
        return
    with get_client(sync_client=True) as client:
        for there in client.read_automations_by_name(_notify_name(settings)):
            client.delete_automation(there.id)
    with suppress(ValueError):  # there is none
        Webhook.delete(block_name)


def webhook_url(schedule: Schedule) -> str | None:
    """What the environment says of the webhook that is told of failures.

    Raises:
        ConfigError: it says nothing.
    """
    if schedule.notify is None:
        return None
    if not (url := os.environ.get(schedule.notify, "")).startswith(("http://", "https://")):
        raise ConfigError(
            f"schedule.notify names the environment variable {schedule.notify}, which holds no http:// or "
            "https:// URL: set it to the webhook's, or leave notify: out"
        )
    return url


def serve(
    settings: Config, schedule: Schedule, config: Path, overrides: list[str], ready: Callable[[UUID], object]
) -> None:
    """Run a config on its schedule until this is interrupted.

    Args:
        settings: the config as it is now; every run reads it anew.
        schedule: when.
        config: its file.
        overrides: as `--set` takes them.
        ready: is told the deployment's id once everything is declared.

    Raises:
        ConfigError: the webhook's URL is not in the environment.
    """
    url = webhook_url(schedule)
    runner = Runner(name=settings.name, heartbeat_seconds=HEARTBEAT_SECONDS)
    deployment = cast(UUID, runner.add_deployment(deployment_of(settings, schedule, config, overrides)))
    declare(crash_automation())
    declare_webhook(settings, deployment, url)
    ready(deployment)
    asyncio.run(_until_interrupted(runner))
    _end_runs(deployment)


def _end_runs(deployment: UUID) -> None:
    """Say of the run that was ended with this process that it is over: else it keeps the next one away."""
    filters: dict[str, Any] = {
        "deployment_id": {"any_": [deployment]},
        "state": {"type": {"any_": [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]}},
    }
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(filters)):
            client.set_flow_run_state(run.id, Crashed(message="serve was ended; the next run goes on"))


async def _until_interrupted(runner: Runner) -> None:
    """Let the runner work until Ctrl-C or SIGTERM; then it pauses its schedule and ends the run that is at work."""
    running = asyncio.ensure_future(runner.start())
    while not runner.started and not running.done():
        await asyncio.sleep(0.05)
    for number in (signal.SIGINT, signal.SIGTERM):  # after the runner set its own, which only knows SIGTERM
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


def declare_for_pool(arguments: list[str]) -> None:
    """What watches over a work pool's runs, which nobody serves: killed ones are found, and failures told of.

    Raises:
        DistillDataError: the config cannot be read, or its webhook's URL is not in the environment.
        ObjectNotFound: there is no such deployment.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.deployments", description=declare_for_pool.__doc__)
    parser.add_argument("config", nargs="?", type=Path, help="its schedule.notify is told of failures")
    parser.add_argument("--deployment", default="distill-data/nightly", help="FLOW/DEPLOYMENT, %(default)s by default")
    given = parser.parse_args(arguments)
    declare(crash_automation())
    if given.config is not None:
        settings = load_config(given.config, [])
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name(given.deployment).id
        declare_webhook(settings, deployment, None if settings.schedule is None else webhook_url(settings.schedule))


if __name__ == "__main__":
    declare_for_pool(sys.argv[1:])
