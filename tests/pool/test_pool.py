from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_data.build import BuildPlan, assemble_version, existing_version, generate_missing, plan_build
from distill_data.errors import ModelError, TeacherError
from distill_data.teachers.generation import Budget, GenerationProgress, GenerationReport
from tests.pool.replay_job import InlinePool, committed, make_config, part_rows, plan, wanted, write_prompts
from tests.processes import workers

PROMPTS = 300  # enough that a worker is far from done when its first parts are there


def make_build(root: Path, model: Path, count: int = PROMPTS, replicas: int = 1, **storage: Any) -> BuildPlan:
    prompts = root / "p.jsonl" if (root / "p.jsonl").exists() else write_prompts(root / "p.jsonl", count)
    engine = {"max_num_seqs": 1, "replicas": replicas}
    return plan(make_config(root, model, prompts, storage={"flush_rows": 8, **storage}, teacher={"engine": engine}))


def digest_of(build: BuildPlan) -> str:
    return assemble_version(build, lambda *_: None)[0].digest


def generate(build: BuildPlan, on_progress: Callable[[GenerationProgress], None] = lambda _: None) -> GenerationReport:
    return generate_missing(build, on_progress)[1]


def signal_once(build: BuildPlan, number: signal.Signals) -> Callable[[GenerationProgress], None]:
    """Sends a signal to the worker as soon as two parts are committed."""
    sent: list[int] = []

    def on_progress(_: GenerationProgress) -> None:
        if not sent and len(build.store.parts()) >= 2:
            (worker,) = workers()
            worker.send_signal(number)
            sent.append(worker.pid)

    return on_progress


def generate_inline(build: BuildPlan) -> GenerationReport:
    """Generate in this process: the same worker without a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.session.TeacherPool", InlinePool)
        return generate(build)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    """The digest of a build that nobody disturbed, with its own sizes of shards and parts."""
    build = make_build(tmp_path_factory.mktemp("undisturbed"), tiny_model, flush_rows=997, shard_size=311)
    assert generate_inline(build).parts == 1
    return digest_of(build)


def test_replicas_share_the_work_and_nothing_is_made_twice(tmp_path: Path, tiny_model: Path, undisturbed: str) -> None:
    build = make_build(tmp_path, tiny_model, replicas=2, shard_size=7)
    shown: list[GenerationProgress] = []
    report = generate(build, shown.append)
    assert committed(build.store) == wanted(build)
    assert max(part_rows(build.store)) <= 8
    assert (report.traces, report.parts) == (2 * PROMPTS, len(build.store.parts()))
    assert report.tokens == sum(build.store.index()["completion_tokens"].to_pylist())
    assert report.engine_seconds > 0 and report.load_seconds > 0
    assert report.tokens_per_second == pytest.approx(report.tokens / report.engine_seconds)
    traces = [progress.traces for progress in shown]
    assert traces == sorted(traces) and traces[-1] == shown[-1].wanted == 2 * PROMPTS
    assert len(list((tmp_path / "logs").iterdir())) == 2
    assert workers() == []
    assert digest_of(build) == undisturbed


def test_sigterm_commits_what_is_finished_and_the_next_run_does_the_rest(
    tmp_path: Path, tiny_model: Path, undisturbed: str
) -> None:
    build = make_build(tmp_path, tiny_model)
    with pytest.raises(TeacherError, match="told to stop before its work was done: run the same command again"):
        generate(build, signal_once(build, signal.SIGTERM))
    kept = committed(build.store)
    assert 16 <= sum(kept.values()) < 2 * PROMPTS
    assert set(kept.values()) == {1}
    with pytest.raises(TeacherError, match=f"{2 * PROMPTS - len(kept)} of {2 * PROMPTS} traces are still missing"):
        assemble_version(build, lambda *_: None)
    resumed = plan(build.config)
    assert len(resumed.plan.finished) == len(kept)
    report = generate_inline(resumed)
    assert report.traces == 2 * PROMPTS - len(kept)
    assert committed(build.store) == wanted(build)
    assert digest_of(resumed) == undisturbed
    finished = plan(build.config)
    version = existing_version(finished)
    assert version is not None and version.digest == undisturbed
    assert generate(finished).parts == 0


def test_a_killed_worker_is_started_again_and_costs_only_what_was_not_committed(
    tmp_path: Path, tiny_model: Path, undisturbed: str
) -> None:
    build = make_build(tmp_path, tiny_model)
    report = generate(build, signal_once(build, signal.SIGKILL))
    assert committed(build.store) == wanted(build)
    assert report.restarts == 1
    assert report.regenerated <= 8 + 8 + 1  # the part on its way, the next one, and the window
    assert report.traces == 2 * PROMPTS
    assert digest_of(build) == undisturbed
    assert workers() == []


SCRIPT = """
import sys
from distill_data.build import generate_missing
from distill_data.config_file import load_config
from tests.pool.replay_job import plan
generate_missing(plan(load_config(sys.argv[1])), lambda _: None)
"""


@pytest.mark.long
def test_a_worker_whose_parent_is_killed_commits_and_leaves(tmp_path: Path, tiny_model: Path) -> None:
    build = make_build(tmp_path, tiny_model)
    config = tmp_path / "c.yaml"
    config.write_text(build.config.model_dump_json(), encoding="utf-8")
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(config)], env={**os.environ, "PYTHONPATH": "."})
    try:
        wait_for(lambda: len(build.store.parts()) >= 2)
        (worker,) = workers(parent.pid)
    finally:
        parent.kill()
        parent.wait()
    worker.wait(20)
    assert not worker.is_running()
    kept = committed(build.store)
    assert 16 <= sum(kept.values()) < 2 * PROMPTS
    assert set(kept.values()) == {1}
    others = {entry.name for entry in build.store.folder.iterdir() if entry.suffix != ".parquet"}
    assert others == {"teacher.json", ".lock"}


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def test_a_teacher_that_cannot_load_says_why_and_where_its_log_is(
    tmp_path: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("no-tokenizer")
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny_model / name).read_bytes())
    build = make_build(tmp_path, folder, count=2)
    with pytest.raises(ModelError, match=r"the teacher stopped: model .* has no tokenizer that loads .*its log: ") as e:
        generate(build)
    assert e.value.exit_code == 2
    log = Path(str(e.value).rsplit("its log: ", 1)[1].rstrip(")"))
    assert "Traceback" in log.read_text()
    assert workers() == []


def test_a_budget_pauses_with_everything_kept_and_the_next_run_goes_on(
    tmp_path: Path, tiny_model: Path, undisturbed: str
) -> None:
    build = make_build(tmp_path, tiny_model, shard_size=8)
    _, report = generate_missing(build, lambda _: None, budget=Budget(max_tokens=500))
    kept = committed(build.store)
    assert report.paused == "--max-tokens 500 is reached"
    assert report.traces == sum(kept.values()) < 2 * PROMPTS and set(kept.values()) == {1}
    assert report.tokens >= 500
    assert report.regenerated == 0
    _, none = generate_missing(plan(build.config), lambda _: None, budget=Budget(max_hours=0.0))
    assert none.paused == "--max-hours 0 is reached" and committed(build.store) == kept
    rest, resumed = generate_missing(plan(build.config), lambda _: None)
    assert resumed.paused is None and resumed.traces == 2 * PROMPTS - report.traces
    assert digest_of(rest) == undisturbed


@pytest.fixture
def in_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs Python code in every worker before it begins."""

    def install(code: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        guard = 'import sys\nif "distill_data.teachers.worker_process" in sys.orig_argv:\n'
        (folder / "sitecustomize.py").write_text(guard + textwrap.indent(code, "    "), encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(folder))

    monkeypatch.setattr("distill_data.teachers.slot.BACKOFF_SECONDS", 0.01)
    return install


DIES_AFTER_A_COMMIT = """
import os, pathlib, signal
from distill_data.trace_store import TraceStore
commit = TraceStore.commit
def commit_and_die(self, traces):
    part = commit(self, traces)
    if len(self.parts()) in (2, 5):
        os.kill(os.getpid(), signal.SIGKILL)
    return part
TraceStore.commit = commit_and_die
"""


@pytest.mark.long
def test_a_part_that_a_dying_worker_did_not_tell_of_is_not_made_again(
    tmp_path: Path, tiny_model: Path, undisturbed: str, in_workers: Callable[[str], None]
) -> None:
    in_workers(DIES_AFTER_A_COMMIT)
    build = make_build(tmp_path, tiny_model)
    report = generate(build)
    assert report.restarts == 2
    assert committed(build.store) == wanted(build)
    assert report.traces == 2 * PROMPTS
    assert digest_of(build) == undisturbed


DIES_OF_A_PROMPT = """
import os, signal
from distill_data.teachers.replay import ReplayTeacher
step = ReplayTeacher.step
def die_of_poison(self):
    for request in self._queue:
        if "你好 13?" in self.tokenizer.decode(request.prompt_token_ids):
            os.kill(os.getpid(), signal.SIGKILL)
    return step(self)
ReplayTeacher.step = die_of_poison
"""


def test_a_prompt_that_kills_the_engine_becomes_a_dead_letter_and_the_rest_is_made(
    tmp_path: Path, tiny_model: Path, in_workers: Callable[[str], None]
) -> None:
    in_workers(DIES_OF_A_PROMPT)
    build = make_build(tmp_path, tiny_model, count=40)
    report = generate(build)
    assert committed(build.store) == wanted(build)
    rows = build.store.read(build.store.index()).to_pylist()
    dead = {(row["prompt_id"], row["sample_index"]): row for row in rows if row["error"]}
    poison = build.prompts.table["prompt_id"].to_pylist()[13]
    assert set(dead) == {(poison, 0), (poison, 1)}
    assert {row["error"] for row in dead.values()} == {"engine_died"}
    assert {row["error_detail"] for row in dead.values()} == {"killed by SIGKILL"}
    lines = [json.loads(line) for line in (build.store.folder / "dead_letters.jsonl").read_text().splitlines()]
    assert {(line["prompt_id"], line["sample_index"], line["cause"]) for line in lines} == {
        (poison, sample, "killed by SIGKILL") for sample in (0, 1)
    }
    assert (report.dead_letters, report.traces) == (2, 80)
    assert len(plan(build.config).plan.missing) == 0
    assert len(plan_build(build.config, build.prompts, retry_failed=True).plan.missing) == 2
    manifest, _ = assemble_version(build, lambda *_: None)
    assert manifest.dropped == {"engine_died": 2}


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os._exit(9)", "exit status 9"),
        pytest.param(
            "from distill_data.teachers.replay import ReplayTeacher\n"
            "def step(self):\n    if len(self._queue) > 1 or self._queue[0].request_id != 'proof': 1 / 0\n"
            "    return [None]\nReplayTeacher.step = step",
            "ZeroDivisionError: division by zero",
            marks=pytest.mark.long,
        ),
    ],
)
def test_when_every_worker_keeps_dying_the_build_fails_in_one_line(
    tmp_path: Path,
    tiny_model: Path,
    in_workers: Callable[[str], None],
    code: str,
    cause: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distill_data.teachers.slot.BACKOFF_SECONDS", 0.01)
    build = make_build(tmp_path, tiny_model)
    generate_missing(build, lambda _: None, budget=Budget(max_tokens=500))
    kept = committed(build.store)
    in_workers(code)
    with pytest.raises(TeacherError, match=rf"workers keep dying, at last: {cause}; .* traces are missing") as caught:
        generate(plan(build.config))
    assert "\n" not in str(caught.value)
    assert committed(build.store) == kept
    log = Path(str(caught.value).partition("see ")[2].partition(", then")[0])
    assert log.is_file()
    assert not (build.store.folder / "dead_letters.jsonl").exists()


HANGS_ONCE = """
import pathlib, time
from distill_data.teachers.replay import ReplayTeacher
step = ReplayTeacher.step
seen = pathlib.Path(__file__).with_name("hung")
def hang(self):
    if self._queue[0].request_id != "proof" and not seen.exists():
        seen.touch()
        time.sleep(600)
    return step(self)
ReplayTeacher.step = hang
"""


@pytest.mark.long
def test_an_engine_that_produces_nothing_is_ended_and_started_again(
    tmp_path: Path, tiny_model: Path, in_workers: Callable[[str], None]
) -> None:
    in_workers(HANGS_ONCE)
    prompts = write_prompts(tmp_path / "p.jsonl", 8)
    engine = {"max_num_seqs": 2, "hang_seconds": 1.0}
    build = plan(make_config(tmp_path, tiny_model, prompts, teacher={"engine": engine}))
    shown: list[GenerationProgress] = []
    assert generate(build, shown.append).restarts == 1
    assert shown[-1].restarts == 1
    assert committed(build.store) == wanted(build)
