"""The process of a verifier: `python -m distill_data.verify.verifier_process PIPE PROGRESS`, two file descriptors.

It is given a judge, then answers with their prompts, a chunk at a time, and says what each one scored. In the memory
behind PROGRESS it leaves which row of a chunk it is at: whoever finds it hanging or dead knows which answer did that.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import resource
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from distill_data.errors import DistillDataError
from distill_data.judge_config import MathJudge, PythonJudge, ReasoningGymJudge
from distill_data.prompts.reasoning_gym import import_reasoning_gym
from distill_data.records import Prompt
from distill_data.verify.judge import Verifier, make_verifier
from distill_data.verify.math import import_math_verify
from distill_data.verify.python import PythonVerifier

IDLE = -1
_MEMORY_BYTES = 4 << 30  # of address space: a tower of powers must not take the machine's
_PR_SET_PDEATHSIG = 1  # prctl(2)

Chunk = list[tuple[str, Prompt]]
Scored = list[tuple[float, str | None]]
"""Per answer its score, NaN where there is none, and why there is none."""


class Progress:
    """A row number in memory that two processes share."""

    def __init__(self, descriptor: int):
        self._memory = mmap.mmap(descriptor, 8)

    @property
    def row(self) -> int:
        """The row that is being scored; IDLE between chunks."""
        return int.from_bytes(self._memory[:8], "little", signed=True)

    @row.setter
    def row(self, row: int) -> None:
        self._memory[:8] = row.to_bytes(8, "little", signed=True)


def main(pipe: int, progress: int) -> int:
    """Serve chunks until the pipe is closed; returns the process's exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # an endless answer must not outlive the build
    connection, at = Connection(pipe), Progress(progress)
    try:
        verifier = _load(connection.recv(), connection)
        while verifier is not None:
            connection.send(_score(verifier, connection.recv(), at))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return 0
    return 1


def _load(judge: Any, connection: Connection) -> Verifier | None:
    """The verifier of a judge, and word of it; None where it cannot be made."""
    try:
        if not isinstance(judge, PythonJudge):  # a function of the user's may need more
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        verifier = make_verifier(judge)
        if isinstance(verifier, PythonVerifier):
            verifier.import_function()  # what cannot be imported is the config's fault, not an answer's
        if isinstance(judge, ReasoningGymJudge):
            import_reasoning_gym()  # seconds on a busy machine, and no answer's
        if isinstance(judge, MathJudge):
            import_math_verify()
    except Exception as error:
        known = isinstance(error, DistillDataError)
        connection.send(str(error) if known else f"{type(error).__name__}: {error}")
        return None
    connection.send(None)
    return verifier


def _score(verifier: Verifier, chunk: Chunk, at: Progress) -> Scored:
    scored: Scored = []
    for row, (answer, prompt) in enumerate(chunk):
        at.row = row
        scored.append(_score_one(verifier, answer, prompt))
    at.row = IDLE
    return scored


def _score_one(verifier: Verifier, answer: str, prompt: Prompt) -> tuple[float, str | None]:
    try:
        score = float(verifier.score(answer, prompt))
    except Exception as error:
        return math.nan, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return score, None if math.isfinite(score) else f"the score is {score}"


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
