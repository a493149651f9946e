"""In a `distill-data build` that `first_token` times: when what happened, in the flow's process and in the worker's."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.hooks.imports import after_import

_marks = os.open(os.environ["DISTILL_DATA_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_seen: set[str] = set()


def mark(name: str) -> None:
    """Write down when this first happened in this process."""
    if name not in _seen:
        _seen.add(name)
        os.write(_marks, f"{time.time()} {name}\n".encode())


def around(owner: Any, name: str, before: str | None, after: str | None = None) -> None:
    """Mark when `owner.name` is first called, and when it has returned."""
    original: Callable[..., Any] = getattr(owner, name)

    def marked(*arguments: Any, **named: Any) -> Any:
        if before:
            mark(before)
        result = original(*arguments, **named)
        if after:
            mark(after)
        return result

    setattr(owner, name, marked)


def in_flow() -> None:
    """The process of the command."""
    after_import("distill_data.session", _watch_session)
    after_import("flows.build", _watch_tasks)
    after_import("distill_data.teachers.worker_handle", lambda module: around(module.WorkerHandle, "__init__", "spawn"))


def _watch_session(session: Any) -> None:
    original = session.early_session
    early = os.environ["DISTILL_DATA_EARLY_START"] == "yes"

    @contextmanager
    def early_session(*arguments: Any) -> Iterator[None]:
        mark("in the flow" if "imported" in _seen else "imported")  # the command's own, then the flow's
        if not early:
            yield
            return
        with original(*arguments):
            mark("early start")
            yield

    session.early_session = early_session


def _watch_tasks(build: Any) -> None:
    mark("prefect imported")
    around(build, "load_prompts_task", None, "prompts")
    around(build, "plan_task", None, "plan")
    around(build, "check_task", None, "check")


def in_worker() -> None:
    """The worker's process."""
    mark("worker python")
    after_import("distill_data.teachers.vllm_engine", _watch_teacher)
    after_import("vllm.v1.engine.llm_engine", lambda _: mark("worker vllm"))
    after_import("distill_data.teachers.messages", lambda module: around(module.Ready, "__init__", "worker ready"))


def _watch_teacher(vllm_engine: Any) -> None:
    mark("worker imported")
    teacher = vllm_engine.VllmTeacher
    add, step = teacher.add, teacher.step
    around(teacher, "__init__", None, "worker engine")

    def marked_add(self: Any, request: Any) -> None:
        if "worker ready" in _seen:
            mark("worker request")
        add(self, request)

    def marked_step(self: Any) -> Any:
        finished = step(self)
        if "worker request" in _seen and "first token" not in _seen and (finished or self.tokens_in_flight()):
            mark("first token")
        return finished

    teacher.add, teacher.step = marked_add, marked_step


if "distill_data.teachers.worker_process" in sys.orig_argv:
    in_worker()
elif any(argument.endswith("/distill-data") for argument in sys.orig_argv):
    in_flow()
