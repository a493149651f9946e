from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from distill_data.errors import InputError
from distill_data.judge_config import ExactJudge, PythonJudge
from distill_data.records import Prompt
from distill_data.verify import VerifierPool
from distill_data.verify.pool import CHUNK_ROWS, _chunks

PROMPT = Prompt([{"role": "user", "content": "?"}], "mine", "right")


def judge(**keys: Any) -> PythonJudge:
    return PythonJudge(verifier="python", function="tests.unit.verify.scorers:by_word", **keys)


def answers(*texts: str) -> list[tuple[str, Prompt]]:
    return [(text, PROMPT) for text in texts]


def test_scores_come_back_in_order_and_a_raising_row_is_marked() -> None:
    texts = ["right", "wrong", "raise", *["right", "wrong"] * 300]
    with VerifierPool(judge(processes=2)) as pool:
        scored = pool.score(answers(*texts))
        assert pool.score([]) == []
    assert [score for score, _ in scored if not math.isnan(score)] == [1.0, 0.0, *[1.0, 0.0] * 300]
    assert math.isnan(scored[2][0]) and scored[2][1] == "ValueError: no such answer"
    assert {error for _, error in scored[:2] + scored[3:]} == {None}


def test_what_hangs_or_kills_its_process_costs_itself() -> None:
    texts = ["right", "hang", "right", "die", "wrong", "exit", "right"]
    with VerifierPool(judge(processes=2, timeout_seconds=1.0)) as pool:
        scored = pool.score(answers(*texts))
        again = pool.score(answers("right"))
    assert [score for score, _ in scored if not math.isnan(score)] == [1.0, 1.0, 0.0, 1.0]
    assert [error for _, error in scored if error] == [
        "verifier_timeout: no score after 1 s",
        "verifier_crashed: its process ended with SIGSEGV",
        "verifier_crashed: its process ended with exit status 3",
    ]
    assert again == [(1.0, None)]


def test_answers_are_scored_in_parallel_elsewhere() -> None:
    with VerifierPool(
        PythonJudge(verifier="python", function="tests.unit.verify.scorers:by_word", processes=2)
    ) as pool:
        pids = {process._process.pid for process in pool._processes}
        assert len(pids) == 2 and os.getpid() not in pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_verifier_that_cannot_be_made_says_why() -> None:
    with pytest.raises(InputError, match=r"the verifier cannot be used: .*no_such_module.*: change judge:"):
        VerifierPool(PythonJudge(verifier="python", function="no_such_module:score", processes=1))


def test_one_process_per_core_where_the_config_does_not_say() -> None:
    with VerifierPool(ExactJudge(verifier="exact")) as pool:
        assert len(pool._processes) == len(os.sched_getaffinity(0))


def test_chunks_are_small_enough_for_every_process() -> None:
    assert _chunks(0, 2) == []
    assert [len(chunk) for chunk in _chunks(3, 2)] == [1, 1, 1]
    assert [len(chunk) for chunk in _chunks(10, 2)] == [3, 3, 3, 1]
    assert max(len(chunk) for chunk in _chunks(100_000, 2)) == CHUNK_ROWS


HANGING = """
import sys
from distill_data.judge_config import PythonJudge
from distill_data.records import Prompt
from distill_data.verify import VerifierPool

pool = VerifierPool(PythonJudge(verifier="python", function="tests.unit.verify.scorers:by_word", processes=1))
print(pool._processes[0]._process.pid, flush=True)
pool.score([("hang", Prompt([{"role": "user", "content": "?"}], "mine", "right"))])
"""


def test_a_killed_build_leaves_no_verifier_behind() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE, text=True, env=environment) as build:
        assert build.stdout is not None
        verifier = int(build.stdout.readline())
        time.sleep(0.5)
        build.send_signal(signal.SIGKILL)
        build.wait()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(verifier) and psutil.Process(verifier).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


LOADING = """
import sys
from multiprocessing import Pipe
from pydantic import TypeAdapter
from distill_data.judge_config import Judge
from distill_data.verify.verifier_process import _load

ours, theirs = Pipe()
assert _load(TypeAdapter(Judge).validate_python({"verifier": sys.argv[1]}), theirs) is not None
print(ours.recv(), sys.argv[2] in sys.modules)
"""


@pytest.mark.parametrize(("verifier", "package"), [("reasoning_gym", "reasoning_gym"), ("math", "math_verify")])
def test_packages_are_imported_before_the_first_answers_time_runs(verifier: str, package: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", LOADING, verifier, package], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.split() == ["None", "True"], done.stderr
