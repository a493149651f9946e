from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from distill_data.build import BuildPlan, assemble_version, existing_version, generate_missing
from distill_data.errors import ModelError, TeacherError
from distill_data.teachers.pool import GenerationProgress, GenerationReport
from tests.pool.replay_job import InlinePool, committed, make_config, part_rows, plan, wanted, write_prompts

PROMPTS = 300  # enough that a worker is far from done when its first parts are there


def make_build(root: Path, model: Path, count: int = PROMPTS, replicas: int = 1, **storage: Any) -> BuildPlan:
    prompts = root / "p.jsonl" if (root / "p.jsonl").exists() else write_prompts(root / "p.jsonl", count)
    engine = {"max_num_seqs": 1, "replicas": replicas}
    return plan(make_config(root, model, prompts, storage={"flush_rows": 8, **storage}, teacher={"engine": engine}))


def digest_of(build: BuildPlan) -> str:
    return assemble_version(build, lambda *_: None)[0].digest


def workers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "distill_data.teachers.worker" in child.cmdline()]


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
        patch.setattr("distill_data.build.TeacherPool", InlinePool)
        return generate_missing(build, lambda _: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    """The digest of a build that nobody disturbed, with its own sizes of shards and parts."""
    build = make_build(tmp_path_factory.mktemp("undisturbed"), tiny_model, flush_rows=997, shard_size=311)
    assert generate_inline(build).parts == 1
    return digest_of(build)


def test_replicas_share_the_work_and_nothing_is_made_twice(tmp_path: Path, tiny_model: Path, undisturbed: str) -> None:
    build = make_build(tmp_path, tiny_model, replicas=2, shard_size=7)
    shown: list[GenerationProgress] = []
    report = generate_missing(build, shown.append)
    assert committed(build.store) == wanted(build)
    assert max(part_rows(build.store)) <= 8
    assert (report.traces, report.parts) == (2 * PROMPTS, len(build.store.parts()))
    assert report.tokens == sum(build.store.index()["completion_tokens"].to_pylist())
    assert report.engine_seconds > 0 and report.load_seconds > 0
    assert report.tokens_per_second == pytest.approx(report.tokens / report.engine_seconds)
    traces = [progress.traces for progress in shown]
    assert traces == sorted(traces) and traces[-1] == shown[-1].wanted == 2 * PROMPTS
    assert (shown[-1].shards_started, shown[-1].shards) == (-(-2 * PROMPTS // 7),) * 2
    assert len(list((tmp_path / "logs").iterdir())) == 2
    assert workers() == []
    assert digest_of(build) == undisturbed


def test_sigterm_commits_what_is_finished_and_the_next_run_does_the_rest(
    tmp_path: Path, tiny_model: Path, undisturbed: str
) -> None:
    build = make_build(tmp_path, tiny_model)
    with pytest.raises(TeacherError, match="told to stop before its work was done: run the same command again"):
        generate_missing(build, signal_once(build, signal.SIGTERM))
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
    assert generate_missing(finished, lambda _: None).parts == 0


def test_a_killed_worker_is_named_and_costs_only_what_was_not_committed(
    tmp_path: Path, tiny_model: Path, undisturbed: str
) -> None:
    build = make_build(tmp_path, tiny_model)
    with pytest.raises(TeacherError, match=r"died \(killed by SIGKILL\).* run the same command again") as caught:
        generate_missing(build, signal_once(build, signal.SIGKILL))
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in str(caught.value)
    kept = committed(build.store)
    assert 16 <= sum(kept.values()) < 2 * PROMPTS
    resumed = plan(build.config)
    assert generate_inline(resumed).traces == 2 * PROMPTS - sum(kept.values())
    assert committed(build.store) == wanted(build)
    assert digest_of(resumed) == undisturbed


SCRIPT = """
import sys
from distill_data.build import generate_missing
from distill_data.config_file import load_config
from tests.pool.replay_job import plan
generate_missing(plan(load_config(sys.argv[1])), lambda _: None)
"""


def test_a_worker_whose_parent_is_killed_commits_and_leaves(tmp_path: Path, tiny_model: Path) -> None:
    build = make_build(tmp_path, tiny_model)
    config = tmp_path / "c.yaml"
    config.write_text(build.config.model_dump_json(), encoding="utf-8")
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(config)], env={**os.environ, "PYTHONPATH": "."})
    try:
        wait_for(lambda: len(build.store.parts()) >= 2)
        (worker,) = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.wait()
    worker.wait(20)
    assert not worker.is_running()
    kept = committed(build.store)
    assert 16 <= sum(kept.values()) < 2 * PROMPTS
    assert set(kept.values()) == {1}
    assert sorted(entry.suffix for entry in build.store.folder.iterdir() if entry.suffix != ".parquet") == [".json"]


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
        generate_missing(build, lambda _: None)
    assert e.value.exit_code == 2
    log = Path(str(e.value).rsplit("its log: ", 1)[1].rstrip(")"))
    assert "Traceback" in log.read_text()
    assert workers() == []
