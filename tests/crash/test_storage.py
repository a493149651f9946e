"""Full, read-only and vanished disks, and killed writers: nothing half-written, nothing lost, one clear line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_data.build import BuildPlan, assemble_version, generate_missing
from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.read import open_corpus
from distill_data.corpus.versions import list_versions
from distill_data.dead_letters import append_dead_letters
from distill_data.errors import CorpusError, DistillDataError, TraceStoreError
from distill_data.prompts import PromptSet, load_prompts, save_prompts
from distill_data.teacher_config import Engine
from distill_data.teachers.generation import GenerationProgress
from distill_data.teachers.worker_handle import WorkerHandle, log_of
from distill_data.trace_store import TraceStore
from tests.crash.small_disk import Disk, Limit, Tmpfs
from tests.pool.replay_job import committed, make_config, plan, wanted, write_prompts
from tests.unit.corpus.conftest import make_job  # noqa: F401  a fixture
from tests.unit.test_trace_store import TEACHER, keys, make_trace, names, new_store

PROMPTS = 300  # enough that a worker is far from done when its first parts are there


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Tmpfs]:
    (tmp_path / "disk").mkdir()
    try:
        disk = Tmpfs(tmp_path / "disk")
    except OSError as error:
        pytest.skip(f"this system lets only root mount a disk: {error}")
    yield disk
    disk.close()


@pytest.fixture(params=["tmpfs", "limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "tmpfs":
        yield request.getfixturevalue("tmpfs")
        return
    limited = Limit(tmp_path)
    yield limited
    limited.close()


def test_a_part_that_finds_no_room_leaves_nothing_and_the_next_one_goes_on(disk: Disk) -> None:
    store = new_store(disk.root)
    kept = store.commit([make_trace(1)])
    disk.fill(1000)
    with pytest.raises(
        TraceStoreError, match=rf"cannot write .*/part-.*\.parquet: {disk.reason}: free space .* is kept"
    ):
        store.commit([make_trace(seed) for seed in range(2, 50)])
    assert names(store) == [kept.name, "teacher.json"]
    assert keys(store.read(store.index())) == [("prompt1", 0)]
    disk.make_room()
    store.commit([make_trace(seed) for seed in range(2, 50)])
    assert sorted(keys(store.read(store.index()))) == sorted((f"prompt{seed}", 0) for seed in range(1, 50))


def test_a_description_that_finds_no_room_is_written_by_the_next_worker(disk: Disk) -> None:
    store = TraceStore(disk.root, TEACHER)
    store.folder.mkdir(parents=True)
    said = {"ingredients": "x" * 10_000}
    disk.fill(1000)
    with pytest.raises(TraceStoreError, match=rf"cannot write .*/teacher\.json: {disk.reason}: free space"):
        store.describe(said)
    assert names(store) == []
    disk.make_room()
    store.describe(said)
    assert store.description() == said


def test_dead_letters_that_find_no_room_leave_no_half_line(disk: Disk) -> None:
    append_dead_letters(disk.root, [("p1", 0)], "SIGSEGV")
    disk.fill(1000)
    with pytest.raises(TraceStoreError, match=r"cannot write .*/dead_letters\.jsonl: No space left on device: free"):
        append_dead_letters(disk.root, [(f"p{number}", 0) for number in range(200)], "SIGSEGV")
    disk.make_room()
    append_dead_letters(disk.root, [("p2", 1)], "SIGABRT")
    letters = [json.loads(line) for line in (disk.root / "dead_letters.jsonl").read_text().splitlines()]
    assert [(letter["prompt_id"], letter["cause"]) for letter in letters] == [("p1", "SIGSEGV"), ("p2", "SIGABRT")]


def test_a_worker_of_a_root_that_vanished_is_not_started(tmp_path: Path) -> None:
    with pytest.raises(TraceStoreError, match=r"cannot write .*/logs/worker-.*: No such file or directory: .*root:"):
        WorkerHandle(0, Engine(), log_of(tmp_path / "gone", 0), lock=None, verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_prompts_that_find_no_room_leave_nothing(disk: Disk, tmp_path: Path) -> None:
    source = make_config(disk.root, Path("no-model"), write_prompts(tmp_path / "p.jsonl", PROMPTS)).prompts
    prompts = load_prompts(list(source))
    disk.fill(1000)
    with pytest.raises(TraceStoreError, match=rf"cannot write .*/prompts/.*\.parquet: {disk.reason}: free space"):
        save_prompts(prompts, disk.root)
    assert list((disk.root / "prompts").iterdir()) == []
    disk.make_room()
    assert save_prompts(prompts, disk.root).is_file()


@pytest.mark.parametrize("left", [2_000, 6_000])
def test_a_version_that_finds_no_room_does_not_exist(
    make_job: Callable[..., Assembly],  # noqa: F811
    disk: Disk,
    left: int,
) -> None:
    job = make_job(root=disk.root)
    disk.fill(left)
    with pytest.raises(
        CorpusError, match=rf"cannot write .*staging.*: {disk.reason}: free space .* every trace is kept"
    ):
        assemble(job, lambda _: None)
    assert list_versions(disk.root, "sums") == []
    assert [entry.name for entry in (disk.root / "corpora" / "sums").iterdir() if entry.name != ".lock"] == []
    disk.make_room()
    assemble(job, lambda _: None)
    assert verify_corpus(open_corpus("sums@v1", disk.root)) == []


def test_a_read_only_disk_is_read_and_not_written(
    make_job: Callable[..., Assembly],  # noqa: F811
    tmpfs: Tmpfs,
) -> None:
    job = make_job(root=tmpfs.root)
    there = keys(job.store.read(job.store.index()))
    tmpfs.protect()
    empty = PromptSet(job.prompts.table.slice(0, 1), job.prompts.dropped, {})
    for write, error in (
        (lambda: job.store.commit([make_trace(1)]), TraceStoreError),
        (lambda: job.store.describe({}), TraceStoreError),
        (lambda: save_prompts(empty, tmpfs.root), TraceStoreError),
        (lambda: assemble(job, lambda _: None), CorpusError),
    ):
        with pytest.raises(error, match=r"cannot write .*: Read-only file system: .*(folder|root)"):
            write()
    assert keys(job.store.read(job.store.index())) == there


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_rights_is_told(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.folder.chmod(0o500)
    with pytest.raises(
        TraceStoreError, match=r"cannot write .*part-.*: Permission denied: free space or fix the folder"
    ):
        store.commit([make_trace(1)])
    store.folder.chmod(0o700)
    assert names(store) == ["teacher.json"]


KILLED = """
import os, signal, sys
from distill_data.trace_store import TraceStore
from tests.unit.test_trace_store import TEACHER, make_trace
store = TraceStore(sys.argv[1], TEACHER)
store.commit([make_trace(1)])
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
store.commit([make_trace(2)])
"""


def test_what_a_killed_writer_left_disturbs_nobody_and_is_cleared_away(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (part,) = store.parts()
    (leftover,) = set(names(store)) - {part, "teacher.json"}
    assert leftover.startswith(".part-") and leftover.endswith(".tmp")
    assert keys(store.read(store.index())) == [("prompt1", 0)]
    store.commit([make_trace(2)])
    store.remove_leftovers()
    assert names(store) == sorted([*store.parts(), "teacher.json"])
    assert sorted(keys(store.read(store.index()))) == [("prompt1", 0), ("prompt2", 0)]


def make_build(root: Path, model: Path, prompts: Path, **storage: Any) -> BuildPlan:
    teacher = {"engine": {"max_num_seqs": 1}}
    return plan(make_config(root, model, prompts, storage={"flush_rows": 8, **storage}, teacher=teacher))


def once_there_are_parts(build: BuildPlan, do: Callable[[], object]) -> Callable[[GenerationProgress], None]:
    """Does something when two parts are committed and the worker is far from done."""
    done: list[bool] = []

    def on_progress(_: GenerationProgress) -> None:
        if not done and len(build.store.parts()) >= 2:
            done.append(True)
            do()

    return on_progress


def digest_of(build: BuildPlan) -> str:
    return assemble_version(build, lambda *_: None)[0].digest


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, str]:
    """The prompts, and the digest of the corpus that they give where nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    prompts = write_prompts(folder / "p.jsonl", PROMPTS)
    build = make_build(folder, tiny_model, prompts, flush_rows=1000)
    generate_missing(build, lambda _: None)
    return prompts, digest_of(build)


def test_a_build_on_a_disk_that_fills_up_says_so_and_goes_on_when_there_is_room(
    tmpfs: Tmpfs, tiny_model: Path, undisturbed: tuple[Path, str]
) -> None:
    prompts, digest = undisturbed
    build = make_build(tmpfs.root, tiny_model, prompts)
    with pytest.raises(
        DistillDataError, match=r"cannot write .*part-.*: No space left on device: free space"
    ) as raised:
        generate_missing(build, once_there_are_parts(build, lambda: tmpfs.fill(20_000)))
    assert "\n" not in str(raised.value)
    kept = committed(build.store)
    assert 16 <= kept.total() < 2 * PROMPTS
    tmpfs.make_room()
    rest = make_build(tmpfs.root, tiny_model, prompts)
    assert len(rest.plan.missing) == 2 * PROMPTS - kept.total()
    generate_missing(rest, lambda _: None)
    assert committed(build.store) == wanted(build)
    assert [name for name in names(build.store) if name.endswith(".tmp")] == []
    assert digest_of(build) == digest


def test_a_build_that_begins_on_a_full_disk_says_so(
    tmpfs: Tmpfs, tiny_model: Path, undisturbed: tuple[Path, str]
) -> None:
    build = make_build(tmpfs.root, tiny_model, undisturbed[0])
    tmpfs.fill(0)
    with pytest.raises(TraceStoreError, match=r"cannot write .*/prompts/.*: No space left on device: free space"):
        generate_missing(build, lambda _: None)
    assert (committed(build.store).total(), list((tmpfs.root / "prompts").iterdir())) == (0, [])


@pytest.mark.long
def test_a_build_whose_disk_vanishes_says_so_and_does_not_go_on_elsewhere(
    tmp_path: Path, tiny_model: Path, undisturbed: tuple[Path, str]
) -> None:
    prompts, digest = undisturbed
    root, away = tmp_path / "root", tmp_path / "away"
    root.mkdir()
    build = make_build(root, tiny_model, prompts)
    with pytest.raises(DistillDataError, match=rf"{root}.*: No such file or directory") as raised:
        generate_missing(build, once_there_are_parts(build, lambda: os.rename(root, away)))
    assert "\n" not in str(raised.value)
    assert not root.exists()
    os.rename(away, root)
    rest = make_build(root, tiny_model, prompts)
    assert 0 < len(rest.plan.missing) < 2 * PROMPTS
    generate_missing(rest, lambda _: None)
    assert committed(build.store) == wanted(build)
    assert digest_of(build) == digest
