"""Workers on a real Ray cluster of several nodes: the same traces, and nothing lost or twice, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_data.build import BuildPlan, assemble_version, generate_missing
from distill_data.errors import TeacherError
from distill_data.lease import Busy, teacher_lease
from distill_data.teachers.generation import Budget, GenerationProgress, GenerationReport
from tests.pool.replay_job import InlinePool, committed, plan, wanted
from tests.pool.test_pool import DIES_OF_A_PROMPT, HANGS_ONCE
from tests.ray.conftest import PROJECT, PROMPTS, make_build
from tests.ray.nodes import Nodes

PATIENCE = 180.0  # seconds


def digest_of(build: BuildPlan) -> str:
    return assemble_version(build, lambda *_: None)[0].digest


def generate(build: BuildPlan, on_progress: Callable[[GenerationProgress], None] = lambda _: None) -> GenerationReport:
    return generate_missing(build, on_progress)[1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    """The digest of the same build without Ray, in this process."""
    build = make_build(tmp_path_factory.mktemp("undisturbed"), tiny_model, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.session.TeacherPool", InlinePool)
        generate(build)
    return digest_of(build)


def test_replicas_on_two_nodes_make_the_same_version_and_ray_says_nothing(
    tmp_path: Path, tiny_model: Path, cluster: Nodes, undisturbed: str, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    build = make_build(tmp_path, tiny_model, cluster)
    capfd.readouterr()
    report = generate(build)
    assert capfd.readouterr() == ("", "")
    assert committed(build.store) == wanted(build)
    assert (report.traces, report.restarts, report.regenerated) == (2 * PROMPTS, 0, 0)
    assert report.load_seconds > 0
    assert len(list((tmp_path / "logs").iterdir())) == 2  # of nodes with a CPU each
    assert digest_of(build) == undisturbed
    assert generate(plan(build.config)).parts == 0
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.long
def test_a_node_that_goes_costs_only_a_start(
    tmp_path: Path, tiny_model: Path, cluster: Nodes, undisturbed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One replica is on it and one on a node that stays; there is no place to start the first one again."""
    node = cluster.add(pair=1)
    build = make_build(tmp_path, tiny_model, cluster, num_cpus=0.0, resources={"pair": 1.0})
    gone: list[int] = []

    def on_progress(progress: GenerationProgress) -> None:
        if not gone and progress.workers_ready == 2 and len(build.store.parts()) >= 2:
            gone.append(len(build.store.parts()))
            cluster.remove(node)

    report = generate(build, on_progress)
    assert len(gone) == 1
    assert committed(build.store) == wanted(build)
    assert report.restarts >= 1 and report.traces == 2 * PROMPTS
    assert digest_of(build) == undisturbed


@pytest.mark.long
def test_a_prompt_that_kills_the_engine_becomes_a_dead_letter_and_the_rest_is_made(
    tmp_path: Path,
    tiny_model: Path,
    cluster: Nodes,
    in_workers: Callable[[str], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distill_data.teachers.dispatch.DEATHS_OF_A_SUSPECT", 1)  # each start takes seconds
    in_workers(DIES_OF_A_PROMPT)
    build = make_build(tmp_path, tiny_model, cluster, count=40)
    report = generate(build)
    assert committed(build.store) == wanted(build)
    rows = build.store.read(build.store.index()).to_pylist()
    poison = build.prompts.table["prompt_id"].to_pylist()[13]
    dead = {(row["prompt_id"], row["sample_index"]): row["error_detail"] for row in rows if row["error"]}
    assert dead == dict.fromkeys([(poison, 0), (poison, 1)], "killed by SIGKILL")
    letters = [json.loads(line) for line in (build.store.folder / "dead_letters.jsonl").read_text().splitlines()]
    assert {letter["cause"] for letter in letters} == {"killed by SIGKILL"}
    assert (report.dead_letters, report.traces) == (2, 80) and report.restarts >= 2


@pytest.mark.long
def test_an_engine_that_hangs_is_ended_on_its_node_and_started_again(
    tmp_path: Path, tiny_model: Path, cluster: Nodes, in_workers: Callable[[str], object], finished: Path
) -> None:
    hung = tmp_path / "hung"
    in_workers(HANGS_ONCE.replace('pathlib.Path(__file__).with_name("hung")', f"pathlib.Path({str(hung)!r})"))
    build = make_build(tmp_path, tiny_model, cluster, count=8)
    engine = build.config.teacher.engine.model_copy(update={"hang_seconds": 5.0, "replicas": 1})
    teacher = build.config.teacher.model_copy(update={"engine": engine})
    report = generate(plan(build.config.model_copy(update={"teacher": teacher})))
    assert hung.exists() and report.restarts == 1
    assert committed(build.store) == wanted(build)


SCRIPT = """
import sys
from distill_data.build import generate_missing
from distill_data.config_file import load_config
from distill_data.interrupt import leave_on_interrupt
from tests.pool.replay_job import plan
build = plan(load_config(sys.argv[1]))
leave_on_interrupt(lambda: print("left"))
generate_missing(build, lambda _: None)
"""


def start_driver(build: BuildPlan) -> subprocess.Popen[str]:
    """The build in a process of its own, some parts after its start."""
    config = Path(build.config.root) / "c.yaml"
    config.write_text(build.config.model_dump_json(), encoding="utf-8")
    driver = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(config)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + PATIENCE
    while len(build.store.parts()) < 2:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    return driver


@pytest.mark.long
def test_a_killed_driver_loses_nothing_that_was_committed_and_the_next_makes_nothing_twice(
    tmp_path: Path, tiny_model: Path, cluster: Nodes, undisturbed: str
) -> None:
    build = make_build(tmp_path, tiny_model, cluster)
    driver = start_driver(build)
    driver.kill()
    driver.wait()
    kept = committed(build.store)
    report = generate(plan(build.config))
    assert committed(build.store) == wanted(build)
    assert 0 < report.traces <= 2 * PROMPTS - sum(kept.values())
    assert digest_of(build) == undisturbed


def test_ctrl_c_commits_what_is_finished_on_all_nodes(
    tmp_path: Path, tiny_model: Path, cluster: Nodes, finished: Path
) -> None:
    build = make_build(tmp_path, tiny_model, cluster)
    driver = start_driver(build)
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=PATIENCE)[0]
    assert said.endswith("left\n"), said  # Ray may tell first of the node that a test before took away
    assert driver.returncode == 1
    with teacher_lease(build.store.folder, wait=False, say=pytest.fail):  # all workers are gone
        kept = committed(build.store)
    assert sum(kept.values()) == len(finished.read_text().split()) < 2 * PROMPTS
    assert set(kept.values()) == {1}


@pytest.mark.long
def test_a_cluster_that_is_too_small_is_told_of_and_used_when_it_has_grown(
    tmp_path: Path, tiny_model: Path, cluster: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_data.teachers.ray_pool.PLACE_SECONDS", 0.0)
    build = make_build(tmp_path, tiny_model, cluster, count=20, num_cpus=1.0, resources={"late": 1.0})
    engine = build.config.teacher.engine.model_copy(update={"load_seconds": 600.0})
    teacher = build.config.teacher.model_copy(update={"engine": engine})
    said: list[str] = []

    def on_progress(progress: GenerationProgress) -> None:
        if progress.waiting_for and not said:
            said.append(progress.waiting_for)
            cluster.add(late=1)

    report = generate(plan(build.config.model_copy(update={"teacher": teacher})), on_progress)
    assert said[0].startswith("a Ray node with 1 CPU and 1 late for each of 2 workers; there is ")
    assert said[0].endswith(" of 2 CPU free, 0 of 0 GPU free, 0 of 0 late free")
    assert committed(build.store) == wanted(build)
    assert report.restarts == 0


def test_a_node_without_the_root_is_one_clear_error(
    tmp_path: Path, tiny_model: Path, cluster: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that means another folder in every process."""
    monkeypatch.chdir(tmp_path)
    build = make_build(tmp_path, tiny_model, cluster, count=4)
    root = Path("/proc/self/cwd/root")
    moved = plan(build.config.model_copy(update={"root": str(root)}))
    seen = f"does not see the folder {root}/traces/.* of this build: root: has to be the same shared folder on every"
    with pytest.raises(TeacherError, match=f"at last: .* {seen}") as caught:
        generate(moved)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_budget_pauses_and_two_builds_do_not_share_a_teacher(
    tmp_path: Path, tiny_model: Path, cluster: Nodes
) -> None:
    build = make_build(tmp_path, tiny_model, cluster)
    busy: list[Busy] = []

    def on_progress(_: GenerationProgress) -> None:
        if not busy:
            with (
                pytest.raises(Busy) as caught,
                teacher_lease(build.store.folder, wait=False, say=pytest.fail),
            ):
                pytest.fail("two builds at once")
            busy.append(caught.value)

    _, report = generate_missing(build, on_progress, budget=Budget(max_tokens=500))
    kept = committed(build.store)
    assert busy and report.paused == "--max-tokens 500 is reached"
    assert report.traces == sum(kept.values()) < 2 * PROMPTS and set(kept.values()) == {1}
