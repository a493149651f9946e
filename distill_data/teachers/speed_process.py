"""The process that times an engine: `python -m distill_data.teachers.speed_process FD`, FD its end of a pipe.

It loads its teacher as a worker does, keeps the window full of requests for a fixed time, and stores nothing.
"""

from __future__ import annotations

import itertools
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection

from distill_data.errors import TeacherError
from distill_data.identity import sampling_seed
from distill_data.teachers.base import Request, Teacher
from distill_data.teachers.messages import Failed
from distill_data.teachers.rendering import render_prompts
from distill_data.teachers.speed import Speed, SpeedJob
from distill_data.teachers.worker import WINDOW
from distill_data.teachers.worker_process import close, leave, prove, start_teacher


def speed_of(teacher: Teacher, job: SpeedJob) -> Speed:
    """Keep the window full; count what comes out and what is in the engine."""
    window = int(WINDOW * job.teacher.teacher.engine.max_num_seqs)
    requests = _requests(teacher, job)
    running = finished = 0

    def work() -> tuple[int, float]:
        """For the given time: tokens made, and seconds that it took."""
        nonlocal running, finished
        began, before = time.monotonic(), finished + teacher.tokens_in_flight()
        while time.monotonic() - began < job.seconds:
            while running < window:
                teacher.add(next(requests))
                running += 1
            done = teacher.step()
            running -= len(done)
            finished += sum(len(completion.token_ids) for completion in done)
        return finished + teacher.tokens_in_flight() - before, time.monotonic() - began

    work()  # warms caches and fills the window with requests of all ages
    tokens, seconds = work()
    memory, device = _peak_memory()
    return Speed(tokens / seconds, seconds, memory, device)


def _requests(teacher: Teacher, job: SpeedJob) -> Iterator[Request]:
    """The prompts that the engine takes, again and again, each time with another seed."""
    settings = job.teacher.teacher
    rendered = render_prompts(job.prompts, teacher.tokenizer, settings)
    fitting = [
        (prompt, one.token_ids)
        for prompt, one in zip(job.prompts, rendered, strict=True)
        if 0 < len(one.token_ids) < teacher.max_model_len
    ]
    if not fitting:
        raise TeacherError("no prompt fits the context: raise teacher.engine.max_model_len")
    for turn in itertools.count():
        for prompt, token_ids in fitting:
            sampling = settings.sampling.with_overrides(prompt.sampling)
            seed = sampling_seed(sampling.seed, prompt.prompt_id, turn)
            yield Request(f"{prompt.prompt_id}-{turn}", token_ids, seed, sampling)


def _peak_memory() -> tuple[int, str]:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return total - free, torch.cuda.get_device_name()
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return 1024 * max(own, children), "cpu"


def main(descriptor: int) -> int:
    """Serve the one job over the pipe with this file descriptor; returns the process's exit status."""
    connection = Connection(descriptor)
    os.register_at_fork(after_in_child=partial(close, descriptor))
    try:
        job: SpeedJob = connection.recv()
        teacher = start_teacher(job.teacher)
        prove(teacher, job.teacher)
        connection.send(speed_of(teacher, job))
        return 0
    except Exception as error:
        traceback.print_exc()  # for the log
        connection.send(Failed(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", None))
        return 1


if __name__ == "__main__":
    leave(main(*map(int, sys.argv[1:])))
