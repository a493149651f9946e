"""Answers as programs: what is run, what it scores, and what cannot be faked."""

from __future__ import annotations

from typing import Any

import pytest

from distill_data.errors import ConfigError, InputError
from distill_data.records import Prompt
from distill_data.verify import code
from distill_data.verify.code import CodeVerifier, find_program
from distill_data.verify.sandbox import Limits, SandboxResult
from tests.unit.verify.attempts import SHORT, clean, run  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("clean")

ASSERTS = "assert double(2) == 4\nassert double('a') == 'aa'\n"
RIGHT = "def double(x):\n    return 2 * x\n"
WRONG = "def double(x):\n    return x\n"
PAIRS = [{"input": "1\n", "output": "2\n"}, {"input": "5", "output": "10"}, {"input": "7", "output": "14 \n\n"}]
PUZZLED = "print(2 * int(input()))"


@pytest.fixture(scope="module")
def verifier() -> CodeVerifier:
    return CodeVerifier(SHORT)


def ask(tests: Any = None, **metadata: Any) -> Prompt:
    return Prompt([{"role": "user", "content": "?"}], "mine", metadata={"tests": tests} | metadata)


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("print(1)", "print(1)"),
        ("So:\n```python\nprint(1)\n```\nDone.", "print(1)\n"),
        ("```python\nprint(1)\n```\nor better\n```python\nprint(2)\n```", "print(2)\n"),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("```Python\nprint(1)\n```\nIt prints\n```\n1\n```", "print(1)\n"),
        ("```py\nprint(1)\n```\n```bash\npython a.py\n```", "print(1)\n"),
        ("1. Like this:\n   ```python3\n   if 1:\n       print(1)\n   ```", "if 1:\n    print(1)\n"),
        ("```python\nprint(1)", "print(1)\n"),
        ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
        ("Use ```print``` here:\n```\nprint(1)\n```", "print(1)\n"),
        ("```bash\nls\n```", "```bash\nls\n```"),
    ],
)
def test_the_program_is_found(answer: str, program: str) -> None:
    assert find_program(answer) == program


@pytest.mark.parametrize(("program", "score"), [(RIGHT, 1.0), (WRONG, 0.0), ("def double(", 0.0), ("", 0.0)])
def test_asserts(verifier: CodeVerifier, program: str, score: float) -> None:
    assert verifier.score(f"Here:\n```python\n{program}```", ask(ASSERTS)) == score


def test_an_entry_point_is_checked(verifier: CodeVerifier) -> None:
    tests = "def check(candidate):\n    assert candidate(2) == 4\n"
    assert verifier.score(RIGHT, ask(tests, entry_point="double")) == 1.0
    assert verifier.score(WRONG, ask(tests, entry_point="double")) == 0.0
    assert verifier.score(RIGHT, ask(tests, entry_point="triple")) == 0.0
    with pytest.raises(InputError, match=r"entry_point 'a\(\)'"):
        verifier.score(RIGHT, ask(tests, entry_point="a()"))


@pytest.mark.parametrize(
    ("program", "score"),
    [
        (PUZZLED, 1.0),
        ("print('2', end='')", 1 / 3),
        (f"{PUZZLED}\nimport sys; sys.exit(1)", 0.0),
        (f"{PUZZLED}\nprint('more')", 0.0),
        ("import os; os._exit(0)", 0.0),
        ("n = int(input())\nassert n != 5\nprint(2 * n)", 2 / 3),
    ],
)
def test_pairs(verifier: CodeVerifier, program: str, score: float) -> None:
    assert verifier.score(program, ask(PAIRS)) == pytest.approx(score)


def test_an_endless_loop_costs_one_limit() -> None:
    verifier = CodeVerifier(Limits(cpu_seconds=1))
    program = "n = int(input())\nwhile n > 1: pass\nprint(2 * n)"
    assert verifier.score(program, ask(PAIRS)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("tests", [None, "", []])
def test_without_tests_the_prompt_says_what_to_do(verifier: CodeVerifier, tests: Any) -> None:
    with pytest.raises(InputError, match="has no tests: fill the metadata column tests"):
        verifier.score(RIGHT, ask(tests))


@pytest.mark.parametrize("tests", [[{"input": "1"}], [{"input": 1, "output": 2}], ["assert 1"], 5, {"inputs": []}])
def test_tests_that_cannot_be_read(verifier: CodeVerifier, tests: Any) -> None:
    with pytest.raises(InputError, match="tests that cannot be read"):
        verifier.score(RIGHT, ask(tests))


def test_without_a_sandbox_nothing_is_judged(monkeypatch: pytest.MonkeyPatch, verifier: CodeVerifier) -> None:
    refused = SandboxResult("refused", None, "", "no Landlock: use another kernel", 0.0)
    monkeypatch.setattr(code, "run_python", lambda *_: refused)
    with pytest.raises(ConfigError, match="no Landlock"):
        verifier.score(RIGHT, ask(ASSERTS))
    monkeypatch.setattr(code, "check_sandbox", lambda: "no Landlock")
    with pytest.raises(ConfigError, match="no Landlock"):
        CodeVerifier()


CHEATS = {
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "import os\nos._exit(0)",
    "exit when called": "import os\ndouble = lambda x: os._exit(0)",
    "system exit when called": "import sys\ndouble = lambda x: sys.exit(0)",
    "exit in a thread": "import os, threading\nthreading.Thread(target=os._exit, args=(0,)).start()\nwhile True: pass",
    "exit hook": "import atexit, os\natexit.register(os._exit, 0)",
    "except hook": "import sys, os\nsys.excepthook = lambda *_: os._exit(0)",
    "prints": "print('passed'); print('OK'); print('s'); print('sr')",
    "other AssertionError": "import builtins\nclass E(Exception): pass\nbuiltins.AssertionError = AssertionError = E",
    "other builtins": "__builtins__ = {'AssertionError': Exception, 'exit': None}",
    "patched exec": "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None",
    "patched os": "import os\nos.write = os.read = os.close = lambda *a: b''\nos._exit = lambda *_: None",
    "patched marshal": "import marshal\nmarshal.loads = lambda *_: (b'', b'')",
    "catches": "import sys\nsys.settrace(lambda *a: None)\ntry:\n    raise AssertionError\nexcept AssertionError: pass",
    "jumps": "import sys\ndef t(frame, event, _):\n    if event == 'line' and frame.f_code.co_name == '<module>':\n"
    "        frame.f_lineno = 3\n    return t\nsys.settrace(t)",
    "signals": "import signal, os\nfor n in (11, 6, 14): signal.signal(n, lambda *_: os._exit(0))\nos.abort()",
    "kills itself": "import os\nos.kill(os.getpid(), 9)",
    "writes everywhere": "import os\nfor fd in range(1, 32):\n    for said in (b's', b'r', b'm', b'sr', bytes(32)):\n"
    "        try: os.write(fd, said)\n        except OSError: pass",
    "closes everything": "import os\nos.closerange(0, 64)",
    "takes the frame": "import sys\nf = sys._getframe()\nwhile f.f_back: f = f.f_back\n"
    "for name in list(f.f_globals): print(name, f.f_globals[name])",
}


@pytest.mark.parametrize("cheat", CHEATS, ids=str)
def test_success_is_not_faked(cheat: str) -> None:
    """The same checks pass for a right program, and fail for this one, whatever it does around its wrong function."""
    program = CHEATS[cheat] if "double =" in CHEATS[cheat] else f"{WRONG}{CHEATS[cheat]}\n"
    assert not run(program, checks="x = 1\nassert double(2) == 4\ny = 2\n").checked
    assert run(RIGHT, checks="x = 1\nassert double(2) == 4\ny = 2\n").checked


def test_the_checks_and_the_token_are_not_there_before_the_program_ends() -> None:
    program = """
        import gc, os, sys
        for fd in (0, *range(3, 32)):
            for read in (lambda: os.pread(fd, 1 << 20, 0), lambda: os.read(fd, 1 << 20)):
                try:
                    os.set_blocking(fd, False)
                    print(fd, read())
                except OSError as error:
                    print(fd, error)
                try:
                    os.set_blocking(fd, True)  # the harness waits on one of them
                except OSError:
                    pass
        frame = sys._getframe()
        while frame:
            print(frame.f_locals, frame.f_globals)
            frame = frame.f_back
        print([thing for thing in gc.get_objects() if isinstance(thing, (dict, list, tuple))])
    """
    result = run(program, Limits(output_kib=8000), checks="MARK = 'in' + 'side'\nassert False, 'the ' + 'end'")
    assert "AssertionError: the end" in result.stderr
    assert len(result.stdout) > 10_000 and "MARK" not in result.stdout


def test_builtins_are_whole_again_for_the_checks() -> None:
    patched = "import builtins\nbuiltins.all = builtins.isinstance = lambda *_: True\n"
    assert not run(patched, checks="assert all([False])").checked
    assert not run(patched, checks="assert isinstance(1, str)").checked


def test_big_checks_arrive_whole() -> None:
    assert run(RIGHT, checks=f"data = {'x' * 3_000_000!r}\nassert len(double(data)) == 6_000_000").checked
