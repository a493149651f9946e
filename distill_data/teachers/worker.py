"""A teacher worker: owns one teacher, keeps its window full, and commits parts itself.

It takes shards from a pipe and says there what it does; see `messages`. When the pipe closes because whoever started
it died, or when it is told to stop, it commits what is finished and leaves.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from multiprocessing.connection import Connection

import numpy as np

from distill_data import teacher_config
from distill_data.dead_letters import append_dead_letters
from distill_data.identity import sampling_seed
from distill_data.planning import Shard
from distill_data.prompts.snapshot import read_prompts
from distill_data.teachers.base import Completion, Request, RequestRefused, Teacher
from distill_data.teachers.committer import Committer
from distill_data.teachers.messages import (
    Drain,
    Moved,
    NoMoreShards,
    Progress,
    ShardWanted,
    Stopped,
    WorkerJob,
)
from distill_data.teachers.outcomes import Outcome, Wanted, failed, outcome_of
from distill_data.teachers.rendering import render_prompts
from distill_data.trace_store import TraceStore

WINDOW = 1.5  # requests kept with the engine, times max_num_seqs: it never drains between prompts or shards
ATTEMPTS = 3  # of a request that the engine gives up, before its trace is `request_failed`
PROGRESS_SECONDS = 0.5
IDLE_SECONDS = 0.2


class TeacherWorker:
    """Turns shards into committed parts with one teacher."""

    def __init__(
        self, teacher: Teacher, settings: teacher_config.Teacher, job: WorkerJob, connection: Connection
    ) -> None:
        self._teacher = teacher
        self._settings = settings
        self._job = job
        self._connection = connection
        self._store = TraceStore(job.root, job.teacher_id)
        self._committer = Committer(self._store, teacher.tokenizer)
        self._window = int(WINDOW * settings.engine.max_num_seqs)
        self._waiting: deque[Wanted] = deque()
        self._running: dict[str, Wanted] = {}
        self._finished: list[Outcome] = []
        self._started_now: list[int] = []
        self._finished_now: list[int] = []
        self._traces = self._tokens = 0
        self._asked = self._no_more_shards = self._draining = False
        self._flushed_at = self._reported_at = time.monotonic()
        self.stopping = False

    def run(self) -> None:
        """Work until there are no more shards, or until told to stop; commit all that is finished either way."""
        try:
            while not self.stopping and not self._done():
                self._talk()
                self._fill_window()
                self._tell_what_moved()
                if self._running:
                    for completion in self._teacher.step():
                        self._collect(completion)
                self._flush_if_due()
                self._report()
        finally:
            self._flush(wait=True)
        self._connection.send(Stopped(complete=self._done() and not self._draining))

    def _done(self) -> bool:
        return self._no_more_shards and not self._waiting and not self._running

    def _idle(self) -> bool:
        return not self._running and not self._waiting

    def _talk(self) -> None:
        """Ask for the next shard before the window runs low, and take what has come."""
        if not self._asked and not self._no_more_shards and len(self._waiting) < self._window:
            self._connection.send(ShardWanted())
            self._asked = True
        while not self._no_more_shards and self._connection.poll(IDLE_SECONDS if self._idle() else 0):
            self._receive(self._connection.recv())

    def _receive(self, message: Shard | NoMoreShards | Drain) -> None:
        match message:
            case Shard():
                self._asked = False
                self._take(message)
            case NoMoreShards():
                self._no_more_shards = True
            case Drain():
                self._no_more_shards = self._draining = True
                self._waiting.clear()

    def _take(self, shard: Shard) -> None:
        wanted = self._unpack(shard)
        if shard.cause is None:
            self._waiting.extend(wanted)
            return
        append_dead_letters(self._store.folder, [(w.prompt_id, w.sample_index) for w in wanted], shard.cause)
        for dead in wanted:
            self._finish(failed(dead, "engine_died", shard.cause))
        self._flush()

    def _unpack(self, shard: Shard) -> list[Wanted]:
        rows, which = np.unique(shard.prompt_rows, return_inverse=True)
        prompts = read_prompts(self._job.prompts_path, rows)
        rendered = render_prompts(prompts, self._teacher.tokenizer, self._settings)
        samplings = [self._settings.sampling.with_overrides(prompt.sampling) for prompt in prompts]
        ids = [prompt.prompt_id for prompt in prompts]
        return [
            Wanted(
                number=int(shard.traces[position]),
                prompt_id=ids[row],
                sample_index=int(shard.sample_indexes[position]),
                rendered=rendered[row],
                sampling=_with_room(samplings[row], int(shard.max_tokens[position])),
            )
            for position, row in enumerate(which)
        ]

    def _fill_window(self) -> None:
        while self._waiting and len(self._running) < self._window:
            wanted = self._waiting.popleft()
            try:
                self._check_length(wanted)
                self._teacher.add(self._request(wanted))
                self._running[wanted.request_id] = wanted
                self._started_now.append(wanted.number)
            except RequestRefused as refusal:
                self._finish(failed(wanted, refusal.error, refusal.detail))

    def _request(self, wanted: Wanted) -> Request:
        return Request(
            request_id=wanted.request_id,
            prompt_token_ids=wanted.rendered.token_ids,
            seed=sampling_seed(self._settings.sampling.seed, wanted.prompt_id, wanted.sample_index),
            sampling=wanted.sampling,
            scored_token_ids=wanted.rendered.scored_token_ids,
            label_token_ids=wanted.rendered.label_token_ids,
        )

    def _check_length(self, wanted: Wanted) -> None:
        limit = self._teacher.max_model_len
        prompt, scored = len(wanted.rendered.token_ids), len(wanted.rendered.to_read_after)
        if prompt + scored >= limit:
            what = f"{prompt} prompt tokens" + (f" and {scored} to score" if scored else "")
            raise RequestRefused(
                "prompt_too_long", f"{what} do not fit a context of {limit}: raise engine.max_model_len"
            )

    def _tell_what_moved(self) -> None:
        """Before the engine steps: should it die, these traces were in it."""
        if self._started_now or self._finished_now:
            self._connection.send(Moved(self._started_now, self._finished_now))
            self._started_now, self._finished_now = [], []

    def _collect(self, completion: Completion) -> None:
        wanted = self._running.pop(completion.request_id)
        if completion.finish_reason in ("stop", "length"):
            self._finish(outcome_of(wanted, completion, self._settings.soft_labels))
        elif wanted.attempt < ATTEMPTS:
            self._waiting.appendleft(dataclasses.replace(wanted, attempt=wanted.attempt + 1))
        else:
            reason = f"the engine ended it {ATTEMPTS} times, at last as {completion.finish_reason!r}"
            self._finish(failed(wanted, "request_failed", reason))

    def _finish(self, outcome: Outcome) -> None:
        self._traces += 1
        self._tokens += len(outcome.token_ids)
        self._finished.append(outcome)
        self._finished_now.append(outcome.wanted.number)

    def _flush_if_due(self) -> None:
        waited = time.monotonic() - self._flushed_at
        storage = self._job.storage
        if len(self._finished) >= storage.flush_rows or waited >= storage.flush_seconds or self._idle():
            self._flush(wait=self._idle())
        self._tell_what_is_written()

    def _flush(self, *, wait: bool = False) -> None:
        self._flushed_at = time.monotonic()
        if self._finished:
            finished, self._finished = self._finished, []
            self._committer.commit(finished)
        self._tell_what_is_written(wait=wait)

    def _tell_what_is_written(self, *, wait: bool = False) -> None:
        for part in self._committer.written(wait=wait):
            self._connection.send(part)

    def _report(self) -> None:
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS or self._done():
            self._reported_at = time.monotonic()
            self._connection.send(Progress(self._traces, self._tokens, self._teacher.tokens_in_flight()))


def _with_room(sampling: teacher_config.Sampling, max_tokens: int) -> teacher_config.Sampling:
    """The sampling of a trace that is made again with more room; 0 is as it was."""
    return sampling.model_copy(update={"max_tokens": max_tokens}) if max_tokens else sampling
