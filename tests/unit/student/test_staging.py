from __future__ import annotations

from pathlib import Path

import pytest

from distill_data.errors import StudentError
from distill_data.student.staging import make_once


@pytest.mark.parametrize("kept", [False, True])
def test_a_training_that_fails_keeps_what_it_can_go_on_from(tmp_path: Path, kept: bool) -> None:
    """No memory or no room: checkpoints of hours are not thrown away for it."""

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        if kept:
            (folder / "checkpoint-500").mkdir()
        raise StudentError("no memory left")

    with pytest.raises(StudentError):
        make_once(tmp_path / "student", lambda: False, fail)
    found: list[list[str]] = []
    make_once(
        tmp_path / "student", lambda: False, lambda folder: found.append(sorted(p.name for p in folder.iterdir()))
    )
    assert found == [["checkpoint-500", "half"] if kept else []]
