"""Try again what failed by accident: too many requests, a server that is down, a connection that broke."""

from __future__ import annotations

import errno
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from distill_data.errors import PublishError, reason_of
from distill_data.publish.secrets import without_secrets

TRIES = 6
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
LONGEST_RETRY_AFTER = 900.0
_PASSING = {408, 429}  # and whatever a server or what stands before it says of itself: 500 and above
_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})")
_ERRNOS = {errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.EIO}

T = TypeVar("T")
Say = Callable[[str], None]


def with_retries(what: str, call: Callable[[], T], say: Say) -> T:
    """What a call gives; it is made again after errors that pass, with growing waits or the server's `Retry-After`.

    Args:
        what: what the call does, for a person: `sending files`.
        call: safe to be made again.
        say: told before every wait.

    Raises:
        PublishError: it still failed at the last try, or the server asks for a wait that is too long.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except Exception as error:
            reason = passing_reason(error)
            if reason is None:
                raise
            wait = _wait_before(attempt, error)
            if attempt == TRIES or wait > LONGEST_RETRY_AFTER:
                raise PublishError(
                    f"{what} failed {attempt} times, at last with: {reason}: run the same command later; what was sent "
                    "is not sent again"
                ) from None
            say(f"{what}: {reason}; trying again in {wait:.0f} s")
            time.sleep(wait)
    raise AssertionError("unreachable")


def passing_reason(error: BaseException) -> str | None:
    """Why an error may pass, in a few words; None where trying again would change nothing."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    for cause in _causes(error):
        if isinstance(cause, OfflineModeIsEnabled):
            return None
        status = status_of(cause)
        if status is not None:
            return f"the server answered {status}" if status in _PASSING or status >= 500 else None
        if isinstance(cause, httpx2.TransportError | ConnectionError | TimeoutError):
            return without_secrets(f"the connection broke ({reason_of(cause)})")
        if isinstance(cause, json.JSONDecodeError):
            return "the server's answer was no JSON"
        if isinstance(cause, OSError) and cause.errno in _ERRNOS:
            return without_secrets(reason_of(cause))
    return None


def status_of(error: BaseException) -> int | None:
    """HTTP status of the answer behind an error of huggingface_hub or hf_xet, which only says it; None: no answer."""
    said = _XET_STATUS.search(str(error)) if isinstance(error, ConnectionError) else None
    return int(said[1]) if said else getattr(getattr(error, "response", None), "status_code", None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__


def _wait_before(attempt: int, error: BaseException) -> float:
    """Seconds to wait: what the server asks for, else twice as long each time, with jitter."""
    for cause in _causes(error):
        headers: Any = getattr(getattr(cause, "response", None), "headers", None)
        if isinstance(headers, dict) or hasattr(headers, "get"):
            asked = _retry_after(headers.get("retry-after"))
            if asked is not None:
                return asked
    return min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)


def _retry_after(value: str | None) -> float | None:
    """Seconds of a `Retry-After` header, which holds seconds or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
