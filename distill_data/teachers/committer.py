"""Commits finished traces beside the engine: decoding, packing, compressing and syncing have a thread of their own."""

from __future__ import annotations

import copy
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from distill_data.teachers.messages import PartWritten
from distill_data.teachers.outcomes import Outcome, traces_of
from distill_data.trace_store import TraceStore


class Committer:
    """Writes one part after another; what went wrong is raised by the next call."""

    def __init__(self, store: TraceStore, tokenizer: Any) -> None:
        self._store = store
        self._tokenizer = copy.deepcopy(tokenizer)  # a fast tokenizer may not encode and decode in two threads at once
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._pending: deque[Future[PartWritten]] = deque()

    def commit(self, outcomes: list[Outcome]) -> None:
        """Start to write one part; waits for the one before, so that a slow disk holds back the engine."""
        if self._pending:
            self._pending[-1].exception()
        self._pending.append(self._thread.submit(self._write, outcomes))

    def written(self, *, wait: bool = False) -> list[PartWritten]:
        """Parts that became durable since the last call; with `wait`, all that were queued.

        Raises:
            TraceStoreError: a part could not be written.
        """
        parts = []
        while self._pending and (wait or self._pending[0].done()):
            parts.append(self._pending.popleft().result())
        return parts

    def _write(self, outcomes: list[Outcome]) -> PartWritten:
        part = self._store.commit(traces_of(outcomes, self._tokenizer))
        return PartWritten(part, np.array([outcome.wanted.number for outcome in outcomes], np.int32))
