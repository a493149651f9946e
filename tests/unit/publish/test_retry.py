"""When and how often a call that failed by accident is made again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from distill_data.errors import PublishError
from distill_data.publish import retry
from distill_data.publish.retry import LONGEST_RETRY_AFTER, TRIES, with_retries


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, without waiting them."""
    waited: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waited.append)
    return waited


def answering(*statuses: int, **headers: str) -> Any:
    """A call that gets these answers, then succeeds."""
    left = list(statuses)

    def call() -> str:
        if not left:
            return "done"
        request = httpx2.Request("GET", "http://hub/x")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = httpx2.Response(left.pop(0), headers=named, request=request)
        raise httpx2.HTTPStatusError("failed", request=request, response=answer)

    return call


def test_waits_double_where_the_server_names_none(waits: list[float]) -> None:
    assert with_retries("asking", answering(500, 502, 520, 529), lambda _: None) == "done"
    assert len(waits) == 4
    for number, waited in enumerate(waits):
        assert 0.75 * 2**number <= waited <= 1.25 * 2**number


def test_a_date_to_wait_for_is_waited_for(waits: list[float]) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert with_retries("asking", answering(429, Retry_After=then), lambda _: None) == "done"
    assert 50 < waits[0] <= 60


def test_a_wait_that_is_too_long_ends_it(waits: list[float]) -> None:
    with pytest.raises(PublishError, match="run the same command later"):
        with_retries("asking", answering(429, Retry_After=str(int(LONGEST_RETRY_AFTER) + 1)), lambda _: None)
    assert not waits


def test_it_ends_after_some_tries(waits: list[float]) -> None:
    with pytest.raises(PublishError, match=f"asking failed {TRIES} times, at last with: the server answered 503"):
        with_retries("asking", answering(*[503] * 99), lambda _: None)
    assert len(waits) == TRIES - 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422])
def test_what_would_fail_again_is_not_tried_again(waits: list[float], status: int) -> None:
    with pytest.raises(httpx2.HTTPStatusError):
        with_retries("asking", answering(status), lambda _: None)
    assert not waits
