"""Sixteen workers and a thousand shards in virtual time: the real Dispatch, no processes.

A worker decodes `sequences` traces at once at a fixed rate each, holds a window of 1.5 times as many with its engine,
asks for the next shard before that runs low, and commits as `TeacherWorker` does. Deaths come at random moments.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill_data.teachers.dispatch import Dispatch
from distill_data.teachers.worker import WINDOW

SEQUENCES = 64
SECONDS_PER_TOKEN = 0.02  # of one sequence, so a worker makes 3,200 tokens/s
FLUSH_ROWS, FLUSH_SECONDS = 256, 30.0  # the config's defaults
LOAD_SECONDS = 120.0  # of an engine that is started again
ROUND_TRIP_SECONDS = 0.5
DEATH, START, ASK = -1, -2, -3  # what happens to a worker, beside that a trace is finished


@dataclass
class Worker:
    """One replica in virtual time; `life` counts its starts, so that events of one that died are known for old."""

    waiting: deque[int] = field(default_factory=deque)
    queued: deque[int] = field(default_factory=deque)  # with the engine, and not decoded yet
    decoding: set[int] = field(default_factory=set)
    finished: list[int] = field(default_factory=list)
    flushed_at: float = 0.0
    asked: bool = False
    life: int = 0


class Simulation:
    """`run` gives back what happened."""

    def __init__(
        self,
        lengths: np.ndarray,
        shard_size: int,
        workers: int,
        deaths_per_hour: float,
        seed: int,
        most_tokens: np.ndarray | None = None,
    ) -> None:
        """`lengths`: tokens of every trace, int [N]; deaths are those of one worker."""
        self._lengths = lengths
        self._dispatch = Dispatch(np.arange(len(lengths)), shard_size, most_tokens)
        self._workers = [Worker() for _ in range(workers)]
        self._random = np.random.default_rng(seed)
        self._mean_life = 3600.0 / deaths_per_hour if deaths_per_hour else np.inf
        self._events: list[tuple[float, int, int, int]] = []  # when, worker, its life, trace or what else
        self._now = self._busy = self._idle = 0.0
        self._deaths = self._lost_tokens = 0
        self._first_idle: float | None = None

    def run(self) -> dict[str, Any]:
        """Until all is committed."""
        for number in range(len(self._workers)):
            self._start(number)
        while self._dispatch.uncommitted:
            self._now, number, life, what = heapq.heappop(self._events)
            if life == self._workers[number].life:
                if what == START:
                    self._start(number)
                elif what == DEATH:
                    self._die(number)
                elif what == ASK:
                    self._workers[number].asked = False
                    self._fill(number)
                else:
                    self._finish(number, what)
        ideal = float(self._lengths.sum()) * SECONDS_PER_TOKEN / SEQUENCES / len(self._workers)
        return {
            "tokens": int(self._lengths.sum()),
            "seconds": self._now,
            "efficiency": ideal / self._now,
            "tail_seconds": self._now - (self._now if self._first_idle is None else self._first_idle),
            "deaths": self._deaths,
            "made_again": self._dispatch.started_again,
            "made_again_tokens": self._lost_tokens,
        }

    def _start(self, number: int) -> None:
        worker = self._workers[number]
        worker.flushed_at = self._now
        if np.isfinite(self._mean_life):
            self._push(self._random.exponential(self._mean_life), number, DEATH)
        self._fill(number)

    def _die(self, number: int) -> None:
        worker = self._workers[number]
        lost = [*worker.finished, *worker.decoding]
        self._lost_tokens += int(self._lengths[lost].sum())
        self._deaths += 1
        self._dispatch.died(number, "killed")
        self._workers[number] = Worker(life=worker.life + 1)
        self._push(LOAD_SECONDS, number, START)
        self._wake_others(number)

    def _finish(self, number: int, trace: int) -> None:
        worker = self._workers[number]
        worker.decoding.remove(trace)
        worker.finished.append(trace)
        self._dispatch.moved(number, [], [trace])
        self._fill(number)
        due = len(worker.finished) >= FLUSH_ROWS or self._now - worker.flushed_at >= FLUSH_SECONDS
        if due or not worker.decoding:
            self._dispatch.committed(number, worker.finished)
            worker.finished, worker.flushed_at = [], self._now

    def _fill(self, number: int) -> None:
        """Ask for one shard if the worker runs low, and keep window and engine full."""
        worker, window = self._workers[number], int(WINDOW * SEQUENCES)
        if not worker.asked and len(worker.waiting) < window:
            self._take(number)
        while worker.waiting and len(worker.queued) + len(worker.decoding) < window:
            trace = worker.waiting.popleft()
            worker.queued.append(trace)
            self._dispatch.moved(number, [trace], [])
        while worker.queued and len(worker.decoding) < SEQUENCES:
            trace = worker.queued.popleft()
            worker.decoding.add(trace)
            self._push(self._lengths[trace] * SECONDS_PER_TOKEN, number, trace)
        if not worker.decoding and self._first_idle is None and self._dispatch.uncommitted:
            self._first_idle = self._now

    def _take(self, number: int) -> None:
        """One shard, if there is one; the next one is asked for a round trip later."""
        worker = self._workers[number]
        if (assignment := self._dispatch.next_for(number)) is None:
            return
        worker.asked = True
        self._push(ROUND_TRIP_SECONDS, number, ASK)
        if assignment.cause is None:
            worker.waiting.extend(assignment.traces.tolist())
        else:
            self._dispatch.committed(number, assignment.traces.tolist())

    def _wake_others(self, dead: int) -> None:
        """What a dead worker left goes to those that wait."""
        for number, worker in enumerate(self._workers):
            if number != dead and not worker.decoding:
                self._fill(number)

    def _push(self, after: float, number: int, what: int) -> None:
        heapq.heappush(self._events, (self._now + float(after), number, self._workers[number].life, what))


def source_lengths(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of four sources one after the other, around 100, 300, 1,000 and 4,000 tokens, and their `max_tokens`;
    int64 [count] each.
    """
    random = np.random.default_rng(seed)
    middles = np.repeat([100, 300, 1000, 4000], count // 4)
    most = np.minimum(4 * middles, 8192)
    lengths = np.rint(random.lognormal(np.log(middles), 0.5)).astype(np.int64)
    return np.clip(lengths, 16, most), most


def reasoning_lengths(count: int, seed: int = 0) -> np.ndarray:
    """Lengths of reasoning traces in tokens: lognormal around 1,000, cut to 64 … 8,192; int64 [count]."""
    lengths = np.random.default_rng(seed).lognormal(np.log(1000.0), 0.9, count)
    return np.clip(np.rint(lengths), 64, 8192).astype(np.int64)
