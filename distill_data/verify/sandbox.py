"""Run a Python program that nobody trusts: one process without rights, from its start to its end (Linux).

Every protection is one that an ordinary user has, so that root, users and containers all get the same: Landlock closes
all files but the standard library and one temporary folder; a seccomp filter leaves no socket, no second process, no
exec and no signal to others; resource limits hold time, memory and files; capabilities are dropped. As there is only
ever one process, killing it ends everything. Where one protection cannot be had nothing is run: the outcome is
`refused`.

What stays possible: to see which files exist and how big they are (Landlock hides what is in them), to read Python's
own libraries, and to slow the machine down within the limits.
"""

from __future__ import annotations

import marshal
import os
import platform
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Literal

from distill_data.verify.sandbox_filter import make_filter
from distill_data.verify.sandbox_limits import Limits
from distill_data.verify.sandbox_start import ENVIRONMENT, Handover, command, file_of, pipe_of, rules_of
from distill_data.verify.sandbox_watch import READY, Ending, Watch

__all__ = ["Limits", "SandboxResult", "check_sandbox", "run_python"]

Outcome = Literal["finished", "timeout", "memory", "output", "killed", "refused"]

_ADVICE = {
    "Landlock": "use Linux 5.13 or newer with landlock in its lsm= list, and a container that allows Landlock's calls",
    "seccomp": "use a kernel with CONFIG_SECCOMP_FILTER, and a container that allows seccomp filters",
    "pidfd": "use Linux 5.13 or newer, and a container that allows pidfd_open",
    "system": "judge code on Linux, on x86_64 or aarch64",
}
_PROBE = """
import os, socket
attempts = {{
    "second process": os.fork,
    "socket": socket.socket,
    "reading outside": lambda: os.listdir("/"),
    "writing outside": lambda: os.open("..", os.O_TMPFILE | os.O_WRONLY),
    "parent's environment": lambda: open("/proc/{parent}/environ"),
    "signal to the parent": lambda: os.kill({parent}, 0),
}}
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError:
        continue
    print("possible:", name)
print("done")
"""


@dataclass(frozen=True)
class SandboxResult:
    """How a run ended.

    `timeout`: CPU or wall time ran out. `memory`: a MemoryError ended the program. `output`: it printed too much, or
    wrote too much to files. `killed`: by a signal, or for too many threads. `refused`: a protection could not be had
    and the program was not run; `stderr` says in one line which, and what to do. `exit_code` is -N after signal N,
    None where nothing ran. `checked`: the checks ran to their end.
    """

    outcome: Outcome
    exit_code: int | None
    stdout: str
    stderr: str
    cpu_seconds: float
    checked: bool = False


def check_sandbox() -> str | None:
    """Why the sandbox cannot run here, in one line; None where a probe that tried to get out stayed inside."""
    result = run_python(_PROBE.format(parent=os.getpid()), "", Limits())
    if result.outcome == "refused":
        return result.stderr
    if result.stdout != "done\n":
        said = " ".join((result.stdout + result.stderr).split())[-200:]
        return f"the sandbox for code does not hold on this machine ({said!r}): judge code on another one"
    return None


def run_python(program: str, stdin: str, limits: Limits, checks: str | None = None) -> SandboxResult:
    """Run a program as `__main__`: standard library, no arguments, no environment, an empty folder to work in.

    `checks` is Python that runs in the program's names after the program's last line, and comes into the process only
    then, with a random token that goes back after the last check. So nothing that the program prints, raises, catches,
    patches or exits with makes it `checked`. But both share one process: code that was written against this harness
    can take the token from its memory, or hand the checks objects that equal everything.
    """
    if reason := _not_here():
        return _refused(reason)
    with ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="distill-data-", ignore_cleanup_errors=True))
        report, child_report = pipe_of(opened)
        handover = None if checks is None else Handover.make(opened, checks)
        request = rules_of(limits, folder) | {
            "program": program.encode("utf-8", "replace"),
            "report": child_report,
            "checks": handover and handover.child_ends,
        }
        request_file = file_of(opened, marshal.dumps(request))
        process = subprocess.Popen(
            command(request_file),
            stdin=file_of(opened, stdin.encode("utf-8", "replace")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[request_file, child_report, *(handover.child_ends if handover else ())],
            env=ENVIRONMENT,
            cwd=folder,
            start_new_session=True,
        )
        opened.enter_context(process)
        ending = Watch(process, report, limits, folder).follow(handover.release if handover else _nothing)
    return _result(ending, limits, handover.token if handover else None)


def _nothing() -> None:
    """Without checks, nothing waits for the program's last line."""


@cache
def _not_here() -> str | None:
    """The protection that is known to be missing before anything is started."""
    if sys.platform != "linux" or make_filter(platform.machine()) is None:
        return f"system: {sys.platform} on {platform.machine()}"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return f"pidfd: {error.strerror}"
    return None


def _refused(reason: str) -> SandboxResult:
    protection = reason.partition(":")[0]
    advice = _ADVICE.get(protection, "judge code on another machine or in another container")
    line = f"the sandbox for code cannot protect this machine ({' '.join(reason.split())}): {advice}"
    return SandboxResult("refused", None, "", line, 0.0)


def _result(ending: Ending, limits: Limits, token: bytes | None) -> SandboxResult:
    """Name the outcome; without the child's word that it was locked down it is `refused`."""
    if not ending.report.startswith(b"s"):
        said = (
            ending.report.removeprefix(b"x") or ending.stderr[-200:] or b"the process ended before it was locked down"
        )
        return _refused(said.decode("utf-8", "replace"))
    # The kernel's limit counts clock ticks and its report does not: on a busy machine they differ.
    out_of_time = ending.exit_code == -signal.SIGKILL and ending.cpu_seconds > limits.cpu_seconds / 2
    outcome: Outcome = "finished"
    if ending.stopped or out_of_time:
        outcome = ending.stopped or "timeout"
    elif ending.exit_code < 0:
        outcome = "killed"
    elif ending.report.endswith(b"m"):
        outcome = "memory"
    return SandboxResult(
        outcome,
        ending.exit_code,
        ending.stdout.decode("utf-8", "replace"),
        ending.stderr.decode("utf-8", "replace"),
        ending.cpu_seconds,
        token is not None and ending.report == READY + token,
    )
