"""Attacks on what the machine has: time, memory, threads, output, files."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from distill_data.errors import ConfigError
from distill_data.verify.sandbox import Limits
from tests.unit.verify.attempts import REFUSED, SHORT, attempt, clean, run  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("clean")

ONE_SECOND = replace(SHORT, cpu_seconds=1, wall_seconds=20.0)
DEAF = """
import signal
for number in signal.valid_signals():
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
"""


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        DEAF + "while True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import threading\nfor _ in range(3): threading.Thread(target=lambda: sum(iter(int, 1))).start()",
        "print(10 ** 10 ** 9)",  # one call into C that never looks at signals
    ],
)
def test_cpu_time_ends(program: str) -> None:
    result = run(program, ONE_SECOND)
    assert result.outcome == "timeout"
    assert 0.5 < result.cpu_seconds < 2


@pytest.mark.parametrize(
    "program",
    [
        DEAF + "import time\ntime.sleep(60)",
        "import os, time\nos.closerange(0, 64)\ntime.sleep(60)",
        "import threading\nthreading.Lock().acquire()\nthreading.Event().wait()",
        "import atexit, time\natexit.register(time.sleep, 60)",
    ],
)
def test_wall_time_ends(program: str) -> None:
    start, busy = time.monotonic(), time.process_time()
    result = run(program, replace(SHORT, wall_seconds=0.8))
    assert result.outcome == "timeout"
    assert time.monotonic() - start < 3
    assert time.process_time() - busy < 0.5  # the parent waits, it does not spin


def test_wall_time_is_twice_the_cpu_time_unless_it_is_given() -> None:
    assert (Limits(cpu_seconds=3).wall, Limits(wall_seconds=0.5).wall) == (6.0, 0.5)


@pytest.mark.parametrize("wrong", [{"cpu_seconds": 0}, {"threads": 0}, {"wall_seconds": 0.0}, {"memory_mib": 63}])
def test_limits_that_nothing_can_run_in(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"sandbox limit {next(iter(wrong))} is .*: set it to"):
        Limits(**wrong)


def test_the_least_memory_is_enough_for_python() -> None:
    assert run("print('ok')", Limits(memory_mib=64), checks="import json").checked


@pytest.mark.parametrize(
    "program",
    [
        "x = bytearray(1 << 30)",
        "x = []\nwhile True: x.append('x' * 100_000 + str(len(x)))",
        "x = [0]\nwhile True: x += x",
    ],
)
def test_memory_ends(program: str) -> None:
    assert run(program).outcome == "memory"


def test_memory_maps_count() -> None:
    assert attempt("import mmap; mmap.mmap(-1, 1 << 30)") == "OSError 12"


def test_deep_recursion_ends() -> None:
    assert "RecursionError" in run("def f(): return f()\nf()").stderr
    deep = "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())"
    assert run(deep).outcome in ("killed", "memory", "finished")
    assert run(deep).exit_code != 0


def test_threads_end() -> None:
    bomb = "import threading, time\nthreading.stack_size(1 << 15)\n"
    bomb += "while True: threading.Thread(target=time.sleep, args=(60,)).start()"
    start = time.monotonic()
    assert run(bomb, replace(SHORT, memory_mib=1024)).outcome == "killed"
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    "program",
    [
        "print('x' * 50_000_000)",
        "while True: print('x' * 1000)",
        "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        "import os\nwhile True: os.write(2, b'x')",
        "import os\nfor n in range(3, 999):\n    try:\n        while True: os.write(n, b'x')\n    except OSError: pass",
    ],
)
def test_output_ends(program: str) -> None:
    result = run(program, replace(SHORT, output_kib=8))
    assert result.outcome == "output"
    assert len(result.stdout) <= 8192 and len(result.stderr) <= 8192


def test_output_up_to_the_limit_is_whole() -> None:
    result = run("print('x' * 8191)\nimport sys\nsys.stderr.write('y' * 8192)", replace(SHORT, output_kib=8))
    assert (result.outcome, result.stdout, result.stderr) == ("finished", "x" * 8191 + "\n", "y" * 8192)


def test_input_that_nobody_reads_blocks_nobody() -> None:
    assert run("print('ok')", stdin="x" * 5_000_000).stdout == "ok\n"
    assert run("print(len(input()))", stdin="x" * 5_000_000).stdout == "5000000\n"


def test_one_file_cannot_fill_the_disk() -> None:
    assert attempt("f = open('a', 'wb', 0)\nwhile True: f.write(bytes(1 << 20))", replace(SHORT, file_mib=4)) == (
        "OSError 27"
    )
    assert attempt("os.truncate('a', 1)") in REFUSED
    assert attempt("open('a', 'wb').truncate(1 << 40)") == "OSError 27"


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_many_files_cannot_fill_the_disk(size: int) -> None:
    program = f"n = 0\nwhile True:\n    n += 1\n    with open(f'f{{n}}', 'wb') as f: f.write(bytes({size}))"
    assert run(program, replace(SHORT, file_mib=4)).outcome == "output"


def test_open_files_are_few() -> None:
    assert attempt("held = [os.dup(1) for _ in range(100)]") == "OSError 24"
