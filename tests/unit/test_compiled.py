"""Compiled loops: not imported before one is called, and kept where the package cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOP = """
from distill_data.compiled import compiled

@compiled
def doubled(value):
    return value + value
"""


def run(code: str, folder: Path, **environment: str) -> str:
    paths = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_filters_and_commands_are_imported_without_numba(tmp_path: Path) -> None:
    modules = "distill_data.filters, distill_data.cli, distill_data.build, distill_data.filters.thresholds"
    assert run(f"import sys, {modules}; print('numba' in sys.modules)", tmp_path) == "False"


@pytest.mark.parametrize("writable", [True, False])
def test_a_package_that_cannot_be_written_is_compiled_all_the_same(tmp_path: Path, writable: bool) -> None:
    """Folders are files here, since root can write where nobody else can."""
    package, home = tmp_path / "package", tmp_path / "home"
    package.mkdir()
    (package / "loop.py").write_text(LOOP, encoding="utf-8")
    (package / "__pycache__").touch()
    if not writable:
        home.touch()
    where = {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": ""}
    assert run("import loop; print(loop.doubled(21))", package, **where) == "42"
    assert bool(list(home.rglob("loop.doubled*.nbi"))) == writable
