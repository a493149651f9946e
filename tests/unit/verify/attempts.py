"""What the sandbox's tests share: one thing to try inside it, and a look at what it left behind."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from distill_data.verify.sandbox import Limits, SandboxResult, run_python

SHORT = Limits(cpu_seconds=2, wall_seconds=4, memory_mib=256)
REFUSED = {"PermissionError 1", "PermissionError 13"}  # by the filter, by Landlock

_ATTEMPT = """
import os, sys
try:
{code}
except OSError as error:
    print(type(error).__name__, error.errno)
else:
    print("DONE")
"""


def attempt(code: str, limits: Limits = SHORT) -> str:
    """What trying this came to inside: DONE, or the OSError and its number."""
    result = run_python(_ATTEMPT.format(code=textwrap.indent(textwrap.dedent(code), "    ")), "", limits)
    assert result.outcome == "finished" and result.exit_code == 0, result
    return result.stdout.strip()


def run(program: str, limits: Limits = SHORT, stdin: str = "", checks: str | None = None) -> SandboxResult:
    return run_python(textwrap.dedent(program), stdin, limits, checks)


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process and no file stays behind."""
    folders = tmp_path / "temporary"
    folders.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders))
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before
    assert list(folders.iterdir()) == []
