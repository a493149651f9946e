"""Which traces go to which worker, and what becomes of those that a worker leaves behind when it dies. No processes.

A trace that is in the engine at three deaths is a suspect. Suspects run alone: a group that kills its worker is
halved until one prompt is left, and that prompt is convicted. A conviction is recorded, as dead letters, once the
same worker has finished something since, or nothing else is left: an engine that dies of everything convicts nobody.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

DEATHS_OF_A_SUSPECT = 3


@dataclass(frozen=True)
class Assignment:
    """What a worker gets next: traces to generate, or, with a cause, to record as dead letters.

    Traces are rows of the plan's missing work: int64 [N].
    """

    traces: np.ndarray
    cause: str | None = None


@dataclass
class _Held:
    """What one worker holds: `uncommitted` of all it got; of these, what is in its engine and what came out."""

    uncommitted: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    alone: bool = False  # it holds a group of suspects and nothing else


@dataclass
class _Conviction:
    """A prompt that killed its worker alone; its further samples join `traces` and are not tried."""

    worker: int
    cause: str
    traces: list[int]
    proven: bool = False


class Dispatch:
    """The state of one generation run. Workers are numbered; a worker that is started again keeps its number."""

    def __init__(self, prompt_rows: np.ndarray, shard_size: int, most_tokens: np.ndarray | None = None) -> None:
        """`prompt_rows`: int [N], the prompt of every missing trace; `most_tokens`: int [N], how long each may get.

        What may get longest is given out first: a long shard at the end would keep one worker and let the others wait.
        """
        self._prompt_rows = prompt_rows
        order = np.arange(len(prompt_rows)) if most_tokens is None else np.argsort(-most_tokens, kind="stable")
        self._pending = deque(np.split(order, list(range(shard_size, len(prompt_rows), shard_size))))
        self._suspects: deque[np.ndarray] = deque()  # both halves of a group before any quarter: soon one lives
        self._convictions: dict[int, _Conviction] = {}
        self._deaths: Counter[int] = Counter()
        self._held: dict[int, _Held] = {}
        self._total = self.uncommitted = len(prompt_rows)
        self.started_again = 0  # traces that went into an engine, or came out of it, and were lost with it
        self.dead_letters = 0

    def held(self, worker: int) -> np.ndarray:
        """What a worker was given and has not committed: int64 [N]."""
        return np.array(sorted(self._of(worker).uncommitted), np.int64)

    def running(self, worker: int) -> int:
        """How many traces are in a worker's engine."""
        return len(self._of(worker).running)

    def is_alone(self, worker: int) -> bool:
        """Whether a worker was given a group of suspects."""
        return self._of(worker).alone

    @property
    def finished(self) -> int:
        """Traces that are committed, or that came out of an engine that lives."""
        return self._total - self.uncommitted + sum(len(held.finished) for held in self._held.values())

    def next_for(self, worker: int) -> Assignment | None:
        """The worker's next assignment; None while it has to wait for its suspects, or for what others leave."""
        mine = self._of(worker)
        if mine.alone and mine.uncommitted:
            return None
        mine.alone = False
        while self._suspects and not mine.uncommitted:
            group = self._without_convicted(self._suspects.popleft())
            if len(group):
                mine.alone = True
                return self._assign(mine, Assignment(group))
        while self._pending:
            innocent = self._without_convicted(self._pending.popleft())
            if len(innocent):
                return self._assign(mine, Assignment(innocent))
        return self._verdict(mine)

    def moved(self, worker: int, started: Iterable[int], finished: Iterable[int]) -> None:
        """Traces went into a worker's engine, and came out of it."""
        mine = self._of(worker)
        mine.running.update(started)
        finished = set(finished)
        mine.running -= finished
        mine.finished |= finished & mine.uncommitted  # a part may be durable before its traces are told of
        for conviction in self._convictions.values():
            conviction.proven |= bool(finished) and conviction.worker == worker

    def committed(self, worker: int, traces: Iterable[int]) -> None:
        """Traces of a worker are durable."""
        traces = set(traces)
        mine = self._of(worker)
        self.uncommitted -= len(traces & mine.uncommitted)
        for kept in (mine.uncommitted, mine.running, mine.finished):
            kept -= traces

    def died(self, worker: int, cause: str) -> None:
        """A worker is gone: requeue what it held, and look who was in its engine."""
        mine = self._held.pop(worker, _Held())
        self.started_again += len(mine.running | mine.finished)
        accused = np.array(sorted(mine.running), np.int64)
        rest = mine.uncommitted - mine.running
        if mine.alone:
            self._halve(worker, accused, cause)
        else:
            self._deaths.update(mine.running)
            suspects = {trace for trace in mine.running if self._deaths[trace] >= DEATHS_OF_A_SUSPECT}
            rest |= mine.running - suspects
            if suspects:
                self._suspects.append(np.array(sorted(suspects), np.int64))
        if rest:
            self._pending.appendleft(np.array(sorted(rest), np.int64))

    def gave_up(self, worker: int) -> None:
        """A worker will not be started again: what only it convicted is suspect once more."""
        for prompt, conviction in list(self._convictions.items()):
            if conviction.worker == worker and not conviction.proven:
                self._suspects.append(np.array(conviction.traces, np.int64))
                del self._convictions[prompt]

    def _halve(self, worker: int, group: np.ndarray, cause: str) -> None:
        """A group of suspects killed its worker: one prompt is guilty, more are two smaller groups."""
        prompts = np.unique(self._prompt_rows[group])
        if len(prompts) == 1:  # another sample of it may have been convicted elsewhere meanwhile
            conviction = self._convictions.setdefault(int(prompts[0]), _Conviction(worker, cause, []))
            conviction.traces += group.tolist()
        elif len(prompts) > 1:
            first = np.isin(self._prompt_rows[group], prompts[: len(prompts) // 2])
            self._suspects += [group[first], group[~first]]

    def _without_convicted(self, shard: np.ndarray) -> np.ndarray:
        if not self._convictions:
            return shard
        guilty = np.isin(self._prompt_rows[shard], list(self._convictions))
        for trace in shard[guilty]:
            self._convictions[int(self._prompt_rows[trace])].traces.append(int(trace))
        return shard[~guilty]

    def _verdict(self, mine: _Held) -> Assignment | None:
        """Dead letters are written last, when nothing is left to generate: by then it is clear who is guilty."""
        nothing_else = self.uncommitted == sum(len(conviction.traces) for conviction in self._convictions.values())
        for conviction in self._convictions.values():
            if conviction.traces and (conviction.proven or nothing_else):
                traces, conviction.traces = np.array(conviction.traces, np.int64), []
                self.dead_letters += len(traces)
                return self._assign(mine, Assignment(traces, conviction.cause))
        return None

    def _assign(self, mine: _Held, assignment: Assignment) -> Assignment:
        mine.uncommitted.update(assignment.traces.tolist())
        return assignment

    def _of(self, worker: int) -> _Held:
        return self._held.setdefault(worker, _Held())
