"""The benchmark of SIGKILLs, with a fixed seed and few kills; it checks every build that it kills."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.kills import kill_repeatedly

KILLS = 10


def test_nothing_is_lost_or_made_twice_when_processes_are_killed_at_random_moments(
    tmp_path: Path, tiny_model: Path
) -> None:
    kills = kill_repeatedly(tmp_path, tiny_model, KILLS, seed=0)
    assert len(kills) == KILLS
    assert {kill.victim for kill in kills} == {"flow", "worker"}
    assert any(kill.lost for kill in kills), "no kill came while traces were in an engine"
