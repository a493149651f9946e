"""A teacher worker: a process that owns one teacher, keeps its window full, and commits parts itself.

Started by `pool` as `python -m distill_data.teachers.worker FD`, where FD is its end of a pipe. When the pipe closes
because whoever started it died, or on SIGTERM, it commits what is finished and leaves.
"""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from distill_data.errors import DistillDataError, ModelError
from distill_data.identity import sampling_seed
from distill_data.models import load_tokenizer, local_model_folder, tokenizer_fingerprint
from distill_data.planning import Shard
from distill_data.prompts.snapshot import read_prompts
from distill_data.records import SoftLabels, Trace
from distill_data.soft_labels import empty_soft_labels, select_support
from distill_data.teachers.base import Completion, Request, RequestRefused, Teacher
from distill_data.teachers.messages import Failed, PartWritten, Progress, Ready, ShardWanted, Stopped, WorkerJob
from distill_data.teachers.rendering import RenderedPrompt, render_prompts
from distill_data.trace_store import TraceStore

WINDOW = 1.5  # requests kept with the engine, times max_num_seqs: it never drains between prompts or shards
PROGRESS_SECONDS = 0.5
IDLE_SECONDS = 0.2


@dataclass(frozen=True)
class Wanted:
    """A trace to generate."""

    prompt_id: str
    sample_index: int
    rendered: RenderedPrompt

    @property
    def request_id(self) -> str:
        """Names the request inside one worker."""
        return f"{self.prompt_id}-{self.sample_index}"


@dataclass(frozen=True)
class Outcome:
    """A trace that is finished and not yet committed: its labels, or why it has none."""

    wanted: Wanted
    token_ids: np.ndarray
    finish_reason: str
    soft_labels: SoftLabels
    error: str | None = None
    error_detail: str | None = None


class TeacherWorker:
    """Turns shards into committed parts with one teacher."""

    def __init__(self, teacher: Teacher, job: WorkerJob, connection: Connection) -> None:
        self._teacher = teacher
        self._job = job
        self._connection = connection
        self._store = TraceStore(job.root, job.teacher_id)
        self._window = int(WINDOW * job.teacher.engine.max_num_seqs)
        self._waiting: deque[Wanted] = deque()
        self._running: dict[str, Wanted] = {}
        self._finished: list[Outcome] = []
        self._traces = self._tokens = 0
        self._asked = self._no_more_shards = False
        self._flushed_at = self._reported_at = time.monotonic()
        self.stopping = False

    def run(self) -> None:
        """Work until there are no more shards, or until told to stop; commit all that is finished either way."""
        try:
            while not self.stopping and not self._done():
                self._ask_for_work()
                self._fill_window()
                if self._running:
                    for completion in self._teacher.step():
                        self._collect(completion)
                self._flush_if_due()
                self._report()
        finally:
            self._flush()
        self._connection.send(Stopped(complete=self._done()))

    def _done(self) -> bool:
        return self._no_more_shards and not self._waiting and not self._running

    def _ask_for_work(self) -> None:
        """Ask for the next shard before the window runs low, and take it when it has come."""
        if self._no_more_shards:
            return
        if not self._asked and len(self._waiting) < self._window:
            self._connection.send(ShardWanted())
            self._asked = True
        idle = not self._running and not self._waiting
        if self._asked and self._connection.poll(IDLE_SECONDS if idle else 0):
            shard = self._connection.recv()
            self._asked = False
            if shard is None:
                self._no_more_shards = True
            else:
                self._waiting.extend(self._unpack(shard))

    def _unpack(self, shard: Shard) -> list[Wanted]:
        rows, which = np.unique(shard.prompt_rows, return_inverse=True)
        prompts = read_prompts(self._job.prompts_path, rows)
        rendered = render_prompts(prompts, self._teacher.tokenizer, self._job.teacher)
        ids = [prompt.prompt_id for prompt in prompts]
        return [
            Wanted(ids[row], int(sample), rendered[row])
            for row, sample in zip(which, shard.sample_indexes, strict=True)
        ]

    def _fill_window(self) -> None:
        while self._waiting and len(self._running) < self._window:
            wanted = self._waiting.popleft()
            try:
                self._check_length(wanted)
                seed = sampling_seed(self._job.teacher.sampling.seed, wanted.prompt_id, wanted.sample_index)
                self._teacher.add(Request(wanted.request_id, wanted.rendered.token_ids, seed))
                self._running[wanted.request_id] = wanted
            except RequestRefused as refusal:
                self._finish(_failed(wanted, refusal.error, refusal.detail))

    def _check_length(self, wanted: Wanted) -> None:
        length, limit = len(wanted.rendered.token_ids), self._teacher.max_model_len
        if length >= limit:
            raise RequestRefused(
                "prompt_too_long",
                f"{length} prompt tokens do not fit a context of {limit}: raise engine.max_model_len",
            )

    def _collect(self, completion: Completion) -> None:
        wanted = self._running.pop(completion.request_id)
        tokens = len(completion.token_ids)
        reason = completion.finish_reason
        if reason not in ("stop", "length"):
            self._finish(_failed(wanted, "request_failed", f"the engine ended it as {reason!r}"))
            return
        if reason == "length" and tokens < self._job.teacher.sampling.max_tokens:
            reason = "context"  # vLLM cuts at the end of the context without saying so
        try:
            labels = select_support(
                completion.top_ids,
                completion.top_logprobs,
                completion.sampled_logprobs,
                self._job.teacher.soft_labels,
            )
        except ValueError as error:
            self._finish(_failed(wanted, "nonfinite_logprobs", f"in {tokens} tokens: {error}"))
            return
        self._tokens += tokens
        self._finish(Outcome(wanted, completion.token_ids, reason, labels))

    def _finish(self, outcome: Outcome) -> None:
        self._traces += 1
        self._finished.append(outcome)

    def _flush_if_due(self) -> None:
        waited = time.monotonic() - self._flushed_at
        storage = self._job.storage
        if len(self._finished) >= storage.flush_rows or waited >= storage.flush_seconds:
            self._flush()

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        if self._finished:
            part = self._store.commit(self._traces_of(self._finished))
            self._finished = []
            self._connection.send(PartWritten(part))

    def _traces_of(self, outcomes: list[Outcome]) -> list[Trace]:
        """Outcomes as traces; the text is decoded here, all together, without the token that stopped it."""
        ids = [o.token_ids[:-1] if o.finish_reason == "stop" else o.token_ids for o in outcomes]
        texts = self._teacher.tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return [
            Trace(
                prompt_id=outcome.wanted.prompt_id,
                sample_index=outcome.wanted.sample_index,
                prompt_token_ids=np.array(outcome.wanted.rendered.token_ids, np.int32),
                prompt_suffix=outcome.wanted.rendered.suffix,
                completion_token_ids=outcome.token_ids,
                completion=text,
                finish_reason=outcome.finish_reason,
                soft_labels=outcome.soft_labels,
                error=outcome.error,
                error_detail=outcome.error_detail,
            )
            for outcome, text in zip(outcomes, texts, strict=True)
        ]

    def _report(self) -> None:
        if time.monotonic() - self._reported_at >= PROGRESS_SECONDS or self._done():
            self._reported_at = time.monotonic()
            self._connection.send(Progress(self._traces, self._tokens))


def _failed(wanted: Wanted, error: str, detail: str) -> Outcome:
    return Outcome(wanted, np.empty(0, np.int32), "error", empty_soft_labels(), error, detail)


def start_teacher(job: WorkerJob) -> Teacher:
    """Load the teacher that a job asks for."""
    if job.teacher.backend == "replay":
        from distill_data.teachers.replay import ReplayTeacher

        return ReplayTeacher(load_tokenizer(job.source), job.teacher)
    from distill_data.teachers.vllm_engine import VllmTeacher

    folder = local_model_folder(job.source, trust_remote_code=job.teacher.trust_remote_code)
    try:
        return VllmTeacher(folder, job.teacher)
    except (ValueError, TypeError) as error:  # what vLLM raises for a configuration that it refuses
        raise ModelError(
            f"vLLM refuses this teacher: {' '.join(str(error).split())[:500]}: change teacher: or teacher.engine:"
        ) from error


def describe_tokenizer(teacher: Teacher) -> dict[str, Any]:
    """What a corpus says about the ids in it: whose they are, and over how many the model's output goes."""
    tokenizer = teacher.tokenizer
    return {
        "sha256": tokenizer_fingerprint(tokenizer),
        "tokens": len(tokenizer),
        "vocab_size": teacher.vocab_size,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def main(descriptor: int) -> int:
    """Serve one job over the pipe with this file descriptor; returns the process's exit status."""
    connection = Connection(descriptor)
    job: WorkerJob = connection.recv()
    try:
        started = time.monotonic()
        teacher = start_teacher(job)
        description = {"teacher_id": job.teacher_id, "ingredients": job.ingredients}
        description["tokenizer"] = describe_tokenizer(teacher)
        TraceStore(job.root, job.teacher_id).describe(description)
        connection.send(Ready(time.monotonic() - started))
        worker = TeacherWorker(teacher, job, connection)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(worker, "stopping", True))
        worker.run()
        return 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 1  # whoever started this worker is gone; what was finished is committed
    except Exception as error:
        traceback.print_exc()  # for the worker's log
        known = isinstance(error, DistillDataError)
        message = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        connection.send(Failed(message, error.exit_code if isinstance(error, DistillDataError) else 1))
        return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
