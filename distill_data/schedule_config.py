"""The section `schedule`: when `distill-data serve` builds, and what else it does."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from distill_data.section import Section

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Schedule(Section):
    """When a config is run by `distill-data serve`. It is no part of a version."""

    cron: str
    """When, as five cron fields: `0 3 * * *` is every night at three."""
    timezone: str = "UTC"
    """Time zone of `cron`, such as `Europe/Berlin`."""
    overlap: Literal["skip", "queue"] = "skip"
    """What happens to a run that is due while the one before is at work: left out, or run afterwards."""
    train: bool = False
    """Whether a run also trains the student on a version that is promoted."""
    notify: Annotated[str | None, Field(exclude_if=lambda name: name is None)] = None
    """Name of the environment variable that holds a webhook's URL, which is told of every run that failed, crashed or
    made a version that failed a gate. Never the URL itself, which is often a secret."""

    @field_validator("cron")
    @classmethod
    def _cron_is_a_time(cls, cron: str) -> str:
        if len(cron.split()) != 5:
            raise ValueError(f"{cron!r} has {len(cron.split())} fields: give five, such as '0 3 * * *'")
        try:
            next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as error:
            raise ValueError(f"{cron!r} is no time ({error or 'it never comes'}): give such as '0 3 * * *'") from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{timezone!r} is no time zone: give UTC or such as Europe/Berlin") from None
        return timezone

    @field_validator("notify")
    @classmethod
    def _is_a_variable(cls, notify: str | None) -> str | None:
        if notify is not None and not _VARIABLE.fullmatch(notify):
            raise ValueError("is no name of an environment variable: put the webhook's URL into one and name it here")
        return notify

    def next_run(self) -> datetime:
        """When the next run is due."""
        return next(CronSim(self.cron, datetime.now(ZoneInfo(self.timezone))))
