"""The process of a teacher worker: `python -m distill_data.teachers.worker_process FD`, FD its end of a pipe.

It loads the teacher, lets it answer one request as a proof that the engine works, and serves the job.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from distill_data.errors import DistillDataError, ModelError
from distill_data.models import load_tokenizer, local_model_folder, tokenizer_fingerprint
from distill_data.teachers.base import Request, Teacher
from distill_data.teachers.messages import Failed, Ready, TeacherJob, WorkerJob
from distill_data.teachers.worker import TeacherWorker
from distill_data.trace_store import TraceStore


def start_teacher(job: TeacherJob) -> Teacher:
    """Load the teacher that a job asks for."""
    if job.teacher.backend == "replay":
        from distill_data.teachers.replay import ReplayTeacher

        return ReplayTeacher(load_tokenizer(job.source), job.teacher)
    if job.teacher.engine.servers is not None:
        from distill_data.teachers.server_teacher import ServerTeacher

        return ServerTeacher(job.source, job.teacher)
    from distill_data.teachers.vllm_engine import VllmTeacher

    folder = local_model_folder(job.source, trust_remote_code=job.teacher.trust_remote_code)
    try:
        return VllmTeacher(folder, job.teacher)
    except (ValueError, TypeError) as error:  # what vLLM raises for a configuration that it refuses
        raise ModelError(
            f"vLLM refuses this teacher: {' '.join(str(error).split())[:500]}: change teacher: or teacher.engine:"
        ) from error


def prove(teacher: Teacher, job: TeacherJob) -> None:
    """One request of a few tokens: an engine that dies of it is broken, one that dies later may blame a prompt."""
    eos = [teacher.tokenizer.eos_token_id]
    sampling = job.teacher.sampling.model_copy(update={"max_tokens": 1})
    scored = eos if job.teacher.mode == "score" else None
    labels = [eos] if job.teacher.mode == "classify" else None
    teacher.add(Request("proof", eos, 0, sampling, scored, labels))
    while not teacher.step():
        pass


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


def main(descriptor: int, *others: int) -> int:
    """Serve one job over the pipe with this file descriptor; returns the process's exit status.

    Processes that the engine forks hold on to neither the pipe nor `others` (the store's lock): both are to end with
    this process.
    """
    connection = Connection(descriptor)
    for kept in (descriptor, *others):
        os.register_at_fork(after_in_child=partial(close, kept))
    try:
        _serve(connection)
        return 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 1  # whoever started this worker is gone; what was finished is committed
    except Exception as error:
        traceback.print_exc()  # for the worker's log
        known = isinstance(error, DistillDataError)
        message = str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        connection.send(Failed(message, error.exit_code if isinstance(error, DistillDataError) else None))
        return 1


def close(descriptor: int) -> None:
    """Close a file descriptor, if it is open."""
    with suppress(OSError):
        os.close(descriptor)


def _serve(connection: Connection) -> None:
    started = time.monotonic()
    loading: TeacherJob = connection.recv()
    teacher = start_teacher(loading)
    prove(teacher, loading)
    tokenizer = describe_tokenizer(teacher)
    connection.send(Ready(time.monotonic() - started))
    job: WorkerJob = connection.recv()
    description = {"teacher_id": job.teacher_id, "ingredients": job.ingredients, "tokenizer": tokenizer}
    TraceStore(job.root, job.teacher_id).describe(description)
    worker = TeacherWorker(teacher, loading.teacher, job, connection)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(worker, "stopping", True))
    worker.run()


def leave(status: int) -> None:
    """End this process; where the engine ran in it, at once: to take itself apart takes vLLM two seconds or more."""
    if os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") != "0":
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main(*map(int, sys.argv[1:])))
