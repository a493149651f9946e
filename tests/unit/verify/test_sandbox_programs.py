"""What ordinary programs do still works in the sandbox."""

from __future__ import annotations

import pytest

from tests.unit.verify.attempts import clean, run  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("clean")


def test_a_program_reads_its_input_and_prints() -> None:
    result = run("import sys\nprint(input() * 2)\nprint('no', file=sys.stderr)\nsys.exit(3)", stdin="añ\n")
    assert (result.outcome, result.exit_code, result.stdout, result.stderr) == ("finished", 3, "añañ\n", "no\n")
    assert 0 < result.cpu_seconds < 2


@pytest.mark.parametrize(
    "program",
    [
        "import asyncio\nasync def main():\n    await asyncio.sleep(0.01)\n    print('ok')\nasyncio.run(main())",
        "import threading\nthreading.stack_size(1 << 26)\nthreading.Thread(target=lambda: print('ok')).start()",
        "import sys\nsys.setrecursionlimit(10**6)\nf = lambda n: n and 1 + f(n - 1)\nprint('ok'[:f(20000)])",
        "import tempfile\nf = tempfile.NamedTemporaryFile('w+')\nf.write('ok')\nf.seek(0)\nprint(f.read())\nf.close()",
        "open('a', 'w').write('ok')\nimport os\nos.rename('a', 'b')\nprint(open('b').read())\nos.remove('b')",
        "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: print('ok'))\nsignal.raise_signal(signal.SIGUSR1)",
        "import hashlib, sqlite3, decimal, json, zlib, random, uuid\nrandom.SystemRandom().random()\nprint('ok')",
        "from dataclasses import dataclass\nimport pickle\n@dataclass\nclass A:\n    x: str\n"
        "print(pickle.loads(pickle.dumps(A('ok'))).x)",
        "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n"
        "    print(*pool.map(str, ['ok']))",
        "import os, sys\nprint('ok' if __name__ == '__main__' and not os.environ and len(sys.argv) == 1 else 'no')",
    ],
)
def test_ordinary_programs_work(program: str) -> None:
    result = run(program)
    assert (result.outcome, result.stdout, result.stderr) == ("finished", "ok\n", "")


def test_sets_have_the_same_order_in_every_run() -> None:
    program = "print(list({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"
    assert run(program).stdout == run(program).stdout
