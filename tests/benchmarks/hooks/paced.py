"""In the workers that `scaling` times: a replay engine of a fixed token rate, and a start of a second."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.benchmarks.hooks.imports import after_import
from tests.benchmarks.hooks.quick_tokenizer import load_quickly
from tests.benchmarks.pace import RATE, tokens_of


def _pace(replay: Any) -> None:
    seconds_per_token = 1 / float(os.environ[RATE])

    def step(teacher: Any) -> list[Any]:
        """Finish one request, when its tokens would have been made."""
        if not teacher._queue:
            return []
        request = teacher._queue.popleft()
        done = time.monotonic() + seconds_per_token * tokens_of(request.seed)
        completion = teacher._replay(request)
        time.sleep(max(0.0, done - time.monotonic()))
        return [completion]

    replay.ReplayTeacher.step = step


after_import("distill_data.models", load_quickly)
after_import("distill_data.teachers.replay", _pace)
