"""In the builds that `kills` kills: record every request that goes into an engine, and start in a second."""

from __future__ import annotations

import os
from typing import Any

from tests.benchmarks.hooks.imports import after_import
from tests.benchmarks.hooks.quick_tokenizer import load_quickly

_started = os.open(os.environ["DISTILL_DATA_STARTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _record_requests(replay: Any) -> None:
    add = replay.ReplayTeacher.add

    def add_and_record(teacher: Any, request: Any) -> None:
        os.write(_started, f"{request.request_id}\n".encode())
        add(teacher, request)

    replay.ReplayTeacher.add = add_and_record


def _restart_soon(slot: Any) -> None:
    slot.BACKOFF_SECONDS = slot.MAX_BACKOFF_SECONDS = 0.1


after_import("distill_data.models", load_quickly)
after_import("distill_data.teachers.replay", _record_requests)
after_import("distill_data.teachers.slot", _restart_soon)
