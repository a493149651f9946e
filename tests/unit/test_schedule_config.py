from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from distill_data.schedule_config import Schedule


@pytest.mark.parametrize("cron", ["0 3 * * *", "*/5 * * * *", "0 3 * * mon", "30 2 1,15 * *"])
def test_a_cron_has_five_fields(cron: str) -> None:
    assert Schedule(cron=cron).next_run() > datetime.now(ZoneInfo("UTC"))


def test_it_is_due_by_its_own_clock() -> None:
    due = Schedule(cron="0 3 * * *", timezone="Asia/Tokyo").next_run()
    assert (due.hour, due.minute, str(due.tzinfo)) == (3, 0, "Asia/Tokyo")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"cron": "every night"}, "'every night' has 2 fields: give five, such as '0 3"),
    ({"cron": "0 0 3 * * *"}, "has 6 fields: give five"),
    ({"cron": "0 25 * * *"}, "'0 25 * * *' is no time "),
    ({"cron": "0 3 31 2 *"}, "'0 3 31 2 *' is no time "),
    ({"cron": "0 3 * * *", "timezone": "Mars/Olympus"}, "'Mars/Olympus' is no time zone: give UTC or"),
    ({"cron": "0 3 * * *", "overlap": "kill"}, "Input should be 'skip' or 'queue'"),
]


@pytest.mark.parametrize(("fields", "expected"), BAD)
def test_what_is_no_schedule_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Schedule.model_validate(fields)
    assert expected in str(refused.value)


def test_a_webhook_is_named_by_a_variable_and_its_url_is_not_repeated() -> None:
    assert Schedule(cron="0 3 * * *", notify="TEAM_HOOK").notify == "TEAM_HOOK"
    with pytest.raises(ValidationError, match="is no name of an environment variable") as refused:
        Schedule(cron="0 3 * * *", notify="https://hooks.example/T0KEN")
    assert "T0KEN" not in refused.value.errors()[0]["msg"]
