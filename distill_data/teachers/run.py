"""One generation run: what the pool's workers say, and what they are told.

A worker that dies or hangs is started again and its traces are requeued (`dispatch` says to whom); the run fails only
when no worker can be kept alive. Workers write the data themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from distill_data.errors import DistillDataError, ModelError, TeacherError
from distill_data.planning import shard_of
from distill_data.teachers.dispatch import Dispatch
from distill_data.teachers.generation import Budget, GenerationProgress, GenerationReport, Work
from distill_data.teachers.messages import (
    Drain,
    Failed,
    Moved,
    NoMoreShards,
    PartWritten,
    Progress,
    Ready,
    ShardWanted,
    Stopped,
    WorkerJob,
)
from distill_data.teachers.slot import Slot
from distill_data.trace_store import CommittedPart, TraceStore

_LOOK_SECONDS = 0.5  # between looks at clocks


class GenerationRun:
    """One run over a pool's slots, some of which may have been started before.

    `launch` starts a slot's process; `where_to_run` says what slots lack that have been without one for a while.
    """

    def __init__(
        self,
        slots: list[Slot],
        launch: Callable[[Slot], None],
        work: Work,
        budget: Budget,
        where_to_run: Callable[[list[Slot]], str] = lambda _: "",
    ) -> None:
        self._slots = slots
        self._launch = launch
        self._where_to_run = where_to_run
        self._work = work
        self._budget = budget
        root, prompts_path = work.root.absolute(), work.prompts_path.absolute()  # a worker may run elsewhere
        self._job = WorkerJob(work.storage, root, work.teacher_id, work.ingredients, prompts_path)
        self._prompt_rows = work.missing["prompt_row"].to_numpy()
        self._dispatch = Dispatch(self._prompt_rows, work.storage.shard_size, work.most_tokens)
        self._store = TraceStore(work.root, work.teacher_id)
        self._known_parts = set(self._store.parts())
        self._committed_traces = self._committed_tokens = self._parts = 0
        self._began_at = time.monotonic()
        self._ready_at: float | None = None
        self._load_seconds = 0.0
        self._restarts = 0
        self._paused: str | None = None
        for slot in slots:
            if slot.handle is not None:
                slot.handle.send(self._job)

    def go(self, on_progress: Callable[[GenerationProgress], None]) -> GenerationReport:
        """Serve the workers until all are done."""
        while not all(slot.over for slot in self._slots):
            self._listen()
            self._watch()
            self._end_if_due()
            self._feed()
            self._start_due()
            on_progress(self._progress())
        if self._dispatch.uncommitted and self._paused is None:
            raise self._all_gone()
        return self._report(time.monotonic())

    def _listen(self) -> None:
        """Handle what workers say within the next moment, and notice those that are gone."""
        alive = [slot for slot in self._slots if slot.handle is not None]
        wait([slot.handle.connection for slot in alive if slot.handle], timeout=_LOOK_SECONDS)
        for slot in alive:
            assert slot.handle is not None
            try:
                for message in slot.handle.received():
                    self._handle(slot, message)
            except EOFError:
                self._lost(slot, slot.handle.how_it_ended())

    def _handle(self, slot: Slot, message: Any) -> None:
        now = time.monotonic()
        if not isinstance(message, Progress):
            slot.moved_at = now
        match message:
            case Ready(load_seconds):
                slot.load_seconds = load_seconds
                self._load_seconds = max(self._load_seconds, load_seconds)
                self._ready_at = self._ready_at or now
            case ShardWanted():
                slot.wants = True
            case Moved(started, finished):
                self._dispatch.moved(slot.number, started, finished)
                slot.barren_deaths = 0 if finished else slot.barren_deaths
            case Progress():
                slot.progressed(message, now)
            case PartWritten(part, traces):
                slot.committed_tokens += part.completion_tokens
                self._committed(slot, part, traces.tolist())
            case Stopped(complete):
                if not complete and not slot.leaving:
                    raise TeacherError(
                        "a teacher worker was told to stop before its work was done: run the same command again "
                        "to continue; everything finished is kept"
                    )
                slot.leaving = True
            case Failed(reason, exit_code):
                self._failed(slot, reason, exit_code)

    def _committed(self, slot: Slot, part: CommittedPart, traces: list[int]) -> None:
        self._known_parts.add(part.name)
        self._parts += 1
        self._committed_traces += part.rows
        self._committed_tokens += part.completion_tokens
        self._dispatch.committed(slot.number, traces)

    def _failed(self, slot: Slot, reason: str, exit_code: int | None) -> None:
        if exit_code is not None:
            kind = ModelError if exit_code == 2 else TeacherError
            raise kind(f"the teacher stopped: {reason} (its log: {slot.log})")
        slot.cause = reason  # its process ends now, and is then started again

    def _lost(self, slot: Slot, how: str) -> None:
        """A worker's process has ended, as it was told or not."""
        self._take_unreported_parts(slot)
        if slot.leaving:
            slot.handle = None
            return
        tried_suspects = self._dispatch.is_alone(slot.number)
        cause = slot.cause or how
        self._dispatch.died(slot.number, cause)
        slot.died(cause, time.monotonic(), at_once=tried_suspects)
        self._restarts += 1
        if slot.over:
            self._dispatch.gave_up(slot.number)

    def _take_unreported_parts(self, slot: Slot) -> None:
        """A worker may die between committing a part and saying so: its traces are not to be generated twice."""
        held = self._dispatch.held(slot.number)
        new = sorted(set(self._store.parts()) - self._known_parts) if len(held) else []
        if not new:
            return
        missing = self._work.missing.take(held)
        ids = self._work.prompt_ids.take(missing["prompt_row"]).to_pylist()
        numbers = dict(zip(zip(ids, missing["sample_index"].to_pylist(), strict=True), held.tolist(), strict=True))
        for name in new:
            part, keys = self._store.keys_of(name)
            traces = [numbers[key] for key in keys if key in numbers]
            if traces:
                self._committed(slot, part, traces)

    def _watch(self) -> None:
        """End workers whose engine takes too long to load, or produces nothing though it has requests."""
        for slot in self._slots:
            if slot.handle is not None and slot.hangs(time.monotonic(), busy=self._dispatch.running(slot.number) > 0):
                slot.handle.kill()

    def _end_if_due(self) -> None:
        """When all is committed or the budget is spent: tell workers to leave, and end those that have not begun."""
        if self._paused is None and self._dispatch.uncommitted:
            self._paused = self._budget.reached(self._tokens(), time.monotonic() - self._began_at)
        if self._paused is None and self._dispatch.uncommitted:
            return
        for slot in self._slots:
            slot.start_at = None
            if slot.handle is not None and not slot.leaving:
                slot.leaving = True
                if slot.load_seconds is None:
                    slot.handle.kill()  # it has nothing to commit
                slot.handle.send(Drain() if self._paused else NoMoreShards())

    def _feed(self) -> None:
        for slot in self._slots:
            if slot.handle is not None and slot.wants and not slot.leaving:
                assignment = self._dispatch.next_for(slot.number)
                if assignment is not None:
                    slot.wants = False
                    slot.handle.send(shard_of(self._work.missing, assignment.traces, assignment.cause))

    def _start_due(self) -> None:
        for slot in self._slots:
            if slot.handle is None and slot.start_at is not None and time.monotonic() >= slot.start_at:
                self._launch(slot)
                if slot.handle is not None:
                    slot.handle.send(self._job)

    def _all_gone(self) -> DistillDataError:
        slot = max(self._slots, key=lambda slot: slot.started_at)
        return TeacherError(
            f"the teacher's workers keep dying, at last: {slot.cause}; {self._dispatch.uncommitted:,} traces are "
            f"missing, everything committed is kept: see {slot.log}, then run the same command again to continue"
        )

    def _tokens(self) -> int:
        """Completion tokens of what is committed, finished, or in an engine."""
        unwritten = sum(slot.tokens_produced - slot.committed_tokens for slot in self._slots if slot.handle)
        return self._committed_tokens + max(0, unwritten)

    def _progress(self) -> GenerationProgress:
        return GenerationProgress(
            traces=self._dispatch.finished,
            wanted=len(self._prompt_rows),
            tokens=self._tokens(),
            seconds=0.0 if self._ready_at is None else time.monotonic() - self._ready_at,
            workers_ready=sum(slot.load_seconds is not None for slot in self._slots if slot.handle),
            restarts=self._restarts,
            waiting_for=self._where_to_run(self._slots),
        )

    def _report(self, now: float) -> GenerationReport:
        return GenerationReport(
            traces=self._committed_traces,
            tokens=self._committed_tokens,
            parts=self._parts,
            load_seconds=self._load_seconds,
            engine_seconds=0.0 if self._ready_at is None else now - self._ready_at,
            seconds=now - self._began_at,
            restarts=self._restarts,
            regenerated=self._dispatch.started_again,
            dead_letters=self._dispatch.dead_letters,
            paused=self._paused if self._dispatch.uncommitted else None,
        )
