"""Dispatch against simulated workers that die: nothing lost, nothing twice, only the guilty convicted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from distill_data.teachers.dispatch import Dispatch
from distill_data.teachers.slot import BARREN_DEATHS

WINDOW = 6


class Simulation:
    """Workers that start what they get, finish it in a random order, and die of some prompts or by chance."""

    def __init__(self, prompts: int, samples: int, poison: set[int], seed: int, *, chance: float = 0.0) -> None:
        self.rows = np.repeat(np.arange(prompts), samples)
        self.dispatch = Dispatch(self.rows, shard_size=5)
        self.poison = poison
        self.random = np.random.default_rng(seed)
        self.chance = chance
        self.waiting: dict[int, list[int]] = {}
        self.running: dict[int, list[int]] = {}
        self.finished: dict[int, list[int]] = {}
        self.committed: Counter[int] = Counter()
        self.dead: Counter[int] = Counter()
        self.deaths = 0
        self.barren: list[int] = [0]  # deaths in a row with nothing finished in between, run by run

    def start(self, worker: int) -> None:
        for kept in (self.waiting, self.running, self.finished):
            kept[worker] = []

    def step(self, worker: int) -> None:
        """Take work, fill the window, then die or finish something, and commit now and then."""
        waiting, running, finished = self.waiting[worker], self.running[worker], self.finished[worker]
        if len(waiting) < WINDOW and (assignment := self.dispatch.next_for(worker)) is not None:
            traces = assignment.traces.tolist()
            if assignment.cause is not None:
                self.dead.update(traces)
                self.dispatch.committed(worker, traces)
            else:
                waiting += traces
        started = [waiting.pop(0) for _ in range(min(len(waiting), WINDOW - len(running)))]
        running += started
        self.dispatch.moved(worker, started, [])
        if any(int(self.rows[trace]) in self.poison for trace in running) or self.random.random() < self.chance:
            self.deaths += 1
            self.barren[-1] += 1
            self.dispatch.died(worker, "killed by SIGKILL")
            self.start(worker)
            return
        if running:
            done = running.pop(int(self.random.integers(len(running))))
            finished.append(done)
            self.barren.append(0)
            self.dispatch.moved(worker, [], [done])
        if len(finished) >= 4 or not (waiting or running):
            self.committed.update(finished)
            self.dispatch.committed(worker, finished)
            finished.clear()

    def run(self, workers: int, steps: int = 20_000) -> None:
        for worker in range(workers):
            self.start(worker)
        for _ in range(steps):
            if not self.dispatch.uncommitted:
                return
            self.step(int(self.random.integers(workers)))
        raise AssertionError("the run did not come to an end")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("workers", [1, 3])
def test_only_the_guilty_are_convicted_and_all_others_are_made_once(seed: int, workers: int) -> None:
    random = np.random.default_rng(seed)
    prompts, samples = int(random.integers(1, 40)), int(random.integers(1, 5))
    poison = set(random.choice(prompts, size=min(prompts, int(random.integers(0, 4))), replace=False).tolist())
    made = Simulation(prompts, samples, poison, seed)
    made.run(workers)
    guilty = {trace for trace, prompt in enumerate(made.rows) if prompt in poison}
    assert set(made.dead) == guilty
    assert set(made.committed) == set(range(len(made.rows))) - guilty
    assert max(made.committed.values(), default=1) == 1
    assert made.dispatch.dead_letters == len(guilty)
    if not poison:
        assert made.deaths == 0


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 5, 7, 8, 9])
def test_deaths_by_chance_lose_nothing_and_convict_nobody(seed: int) -> None:
    """Only a trace that is there at four deaths, the last one alone, would be convicted."""
    made = Simulation(prompts=60, samples=3, poison=set(), seed=seed, chance=0.03)
    made.run(workers=2)
    assert made.deaths >= 3
    assert not made.dead
    assert made.committed == Counter(range(180))


def test_one_poison_prompt_costs_three_deaths_and_those_of_halving_its_window() -> None:
    made = Simulation(prompts=60, samples=1, poison={17}, seed=0)
    made.run(workers=1)
    assert made.deaths <= 3 + 1 + np.ceil(np.log2(WINDOW))


@pytest.mark.parametrize(
    ("guilty", "window", "deaths"),
    [(1, 6, 5), (1, 96, 5), (2, 1, 8), (2, 6, 6), (2, 96, 6), (3, 6, 9), (3, 96, 9), (4, 6, 11), (4, 96, 11)],
)
def test_neighbours_that_are_poison_are_told_from_an_engine_that_dies_of_everything(
    monkeypatch: pytest.MonkeyPatch, guilty: int, window: int, deaths: int
) -> None:
    """`deaths`: at most so many in a row, wherever the neighbours stand in the first windows."""
    monkeypatch.setattr("tests.unit.teachers.test_dispatch.WINDOW", window)
    most = 0
    for first in range(0, 2 * window, max(1, window // 6)):
        poison = set(range(first, first + guilty))
        made = Simulation(prompts=4 * window + guilty, samples=1, poison=poison, seed=0)
        made.run(workers=1)
        assert set(made.dead) == poison
        most = max(most, *made.barren)
    assert most <= deaths < BARREN_DEATHS


def test_what_dies_alone_waits_for_a_proof_that_the_engine_works() -> None:
    dispatch = Dispatch(np.arange(4), shard_size=1)
    for _ in range(3):
        assignment = dispatch.next_for(0)
        assert assignment is not None and assignment.traces.tolist() == [0]
        dispatch.moved(0, [0], [])
        dispatch.died(0, "killed")
    suspects = dispatch.next_for(0)
    assert suspects is not None and suspects.traces.tolist() == [0] and dispatch.is_alone(0)
    assert dispatch.next_for(0) is None  # nothing else beside it
    dispatch.moved(0, [0], [])
    dispatch.died(0, "killed again")
    for trace in (1, 2, 3):  # the innocent come first
        assignment = dispatch.next_for(0)
        assert assignment is not None and (assignment.traces.tolist(), assignment.cause) == ([trace], None)
        dispatch.moved(0, [trace], [trace])
        dispatch.committed(0, [trace])
    verdict = dispatch.next_for(0)
    assert verdict is not None and (verdict.traces.tolist(), verdict.cause) == ([0], "killed again")


def test_a_worker_that_is_given_up_takes_its_unproven_verdicts_back() -> None:
    dispatch = Dispatch(np.arange(2), shard_size=1)
    for _ in range(4):
        dispatch.next_for(0)
        dispatch.moved(0, [0], [])
        dispatch.died(0, "killed")
    dispatch.gave_up(0)
    again = dispatch.next_for(1)
    assert again is not None and again.traces.tolist() == [0] and again.cause is None
    dispatch.moved(1, [0], [0])
    dispatch.committed(1, [0])
    other = dispatch.next_for(1)
    assert other is not None and other.traces.tolist() == [1]


def test_what_was_in_the_engine_or_finished_is_counted_as_started_again() -> None:
    dispatch = Dispatch(np.arange(10), shard_size=10)
    dispatch.next_for(0)
    dispatch.moved(0, [0, 1, 2, 3], [])
    dispatch.moved(0, [], [0, 1])
    dispatch.committed(0, [0])
    assert (dispatch.finished, dispatch.running(0)) == (2, 2)
    assert dispatch.held(0).tolist() == list(range(1, 10))
    dispatch.died(0, "killed")
    assert dispatch.started_again == 3
    assert (dispatch.finished, dispatch.uncommitted) == (1, 9)


def test_a_part_may_be_durable_before_its_traces_are_told_of() -> None:
    dispatch = Dispatch(np.arange(2), shard_size=2)
    dispatch.next_for(0)
    dispatch.moved(0, [0, 1], [])
    dispatch.committed(0, [0])
    dispatch.moved(0, [], [0])
    assert dispatch.finished == 1


def test_two_samples_of_one_prompt_that_kill_two_workers_alone_are_both_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distill_data.teachers.dispatch.DEATHS_OF_A_SUSPECT", 1)
    dispatch = Dispatch(np.array([0, 0]), shard_size=1)
    for _ in ("together with others", "alone"):
        for worker in (0, 1):
            assignment = dispatch.next_for(worker)
            assert assignment is not None and assignment.cause is None
            dispatch.moved(worker, assignment.traces.tolist(), [])
        for worker in (0, 1):
            dispatch.died(worker, f"cause {worker}")
    letters = dispatch.next_for(1)
    assert letters is not None and letters.cause == "cause 0" and letters.traces.tolist() == [0, 1]
    dispatch.committed(1, [0, 1])
    assert (dispatch.uncommitted, dispatch.dead_letters) == (0, 2)


def test_a_convicted_prompts_other_sample_is_not_tried_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_data.teachers.dispatch.DEATHS_OF_A_SUSPECT", 1)
    dispatch = Dispatch(np.array([0, 0]), shard_size=1)
    for worker in (0, 1):
        assert dispatch.next_for(worker) is not None
        dispatch.moved(worker, [worker], [])
    for worker in (0, 1):
        dispatch.died(worker, "killed")
    assert dispatch.next_for(0) is not None
    dispatch.moved(0, [0], [])
    dispatch.died(0, "killed")
    letters = dispatch.next_for(0)
    assert letters is not None and letters.cause == "killed" and sorted(letters.traces.tolist()) == [0, 1]


def test_what_may_get_longest_is_given_out_first_and_the_rest_as_planned() -> None:
    dispatch = Dispatch(np.arange(6), shard_size=2, most_tokens=np.array([8, 8, 64, 8, 64, 512]))
    given = [dispatch.next_for(0) for _ in range(3)]
    assert [one.traces.tolist() for one in given if one] == [[5, 2], [4, 0], [1, 3]]
