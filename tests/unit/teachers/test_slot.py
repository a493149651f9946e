from __future__ import annotations

from pathlib import Path
from typing import Any

from distill_data.teacher_config import Engine
from distill_data.teachers.messages import Progress
from distill_data.teachers.slot import BARREN_DEATHS, LOADS, MAX_BACKOFF_SECONDS, Slot


class Handle:
    """A process that does nothing."""

    log = Path("worker.log")
    waiting = False


def started(engine: Engine | None = None, now: float = 100.0) -> Slot:
    slot = Slot(0)
    handle: Any = Handle()
    slot.started(handle, engine or Engine(), now)
    return slot


def ready(**engine: Any) -> Slot:
    slot = started(Engine(**engine))
    slot.load_seconds = 1.0
    return slot


def again(slot: Slot) -> None:
    handle: Any = Handle()
    slot.started(handle, slot.engine, 100.0)
    slot.load_seconds = 1.0


def test_deaths_in_a_row_wait_longer_and_longer_until_something_is_finished() -> None:
    slot = ready()
    waits = []
    for _ in range(8):
        slot.died("killed", 100.0, at_once=False)
        assert slot.start_at is not None
        waits.append(slot.start_at - 100.0)
        again(slot)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60] and MAX_BACKOFF_SECONDS == 60
    slot.barren_deaths = 0  # as `run` does when something is finished
    slot.died("killed", 100.0, at_once=False)
    assert slot.start_at == 101.0


def test_one_that_tried_suspects_is_started_at_once() -> None:
    slot = ready()
    slot.died("killed", 100.0, at_once=True)
    assert slot.start_at == 100.0 and not slot.over


def test_engines_that_never_load_are_given_up_soon() -> None:
    slot = started()
    for _ in range(LOADS - 1):
        slot.died("exit status 1", 100.0, at_once=False)
        assert not slot.over
        slot.started(slot.handle or Handle(), Engine(), 100.0)  # type: ignore[arg-type]
    slot.died("exit status 1", 100.0, at_once=False)
    assert slot.over and slot.cause == "exit status 1"


def test_a_place_is_given_up_after_more_deaths_than_poison_prompts_take() -> None:
    slot = ready()
    for number in range(1, BARREN_DEATHS + 1):
        slot.died("killed", 100.0, at_once=True)
        assert slot.over == (number == BARREN_DEATHS)
        if not slot.over:
            again(slot)


def test_an_engine_hangs_when_it_is_busy_and_no_token_comes() -> None:
    slot = ready(hang_seconds=5.0)
    assert not slot.hangs(104.0, busy=True)
    assert not slot.hangs(200.0, busy=False)
    slot.progressed(Progress(0, 0, 3), 104.0)
    assert not slot.hangs(108.0, busy=True)
    slot.progressed(Progress(0, 0, 3), 108.0)  # the same figures: it talks, and produces nothing
    assert slot.hangs(109.5, busy=True)
    assert slot.cause == "no token in 5 s (engine.hang_seconds)"


def test_an_engine_that_does_not_come_up_hangs() -> None:
    slot = started(Engine(load_seconds=7.0))
    assert not slot.hangs(106.0, busy=False)
    assert slot.hangs(108.0, busy=False)
    assert slot.cause == "the engine was not up after 7 s (engine.load_seconds)"
