from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from distill_data.errors import TraceStoreError
from distill_data.lease import Busy, await_remote_worker, lock_remotely, teacher_lease

HOLD = """
import sys, time
from pathlib import Path
from distill_data.lease import teacher_lease
with teacher_lease(Path(sys.argv[1]), wait=False, say=print):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "traces" / "abc"


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lease until it is told to let go."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_one_after_the_other_and_again_in_the_same_process(folder: Path) -> None:
    for _ in range(2):
        with teacher_lease(folder, wait=False, say=pytest.fail):
            assert folder.is_dir()


def test_a_build_that_is_not_to_wait_leaves_and_says_who_is_there(folder: Path) -> None:
    other = hold(folder)
    try:
        with (
            pytest.raises(Busy, match=rf"another build .* is at work \(process {other.pid} on .*, since 20"),
            teacher_lease(folder, wait=False, say=pytest.fail),
        ):
            pytest.fail("two builds at once")
    finally:
        other.communicate("\n")


def test_a_build_that_waits_says_so_and_goes_on_when_the_other_is_done(folder: Path) -> None:
    other = hold(folder)
    said: list[str] = []
    threading.Timer(1.0, lambda: other.communicate("\n")).start()
    started = time.monotonic()
    with teacher_lease(folder, wait=True, say=said.append):
        assert time.monotonic() - started >= 0.9
    assert len(said) == 1 and said[0].endswith(": waiting for it") and f"process {other.pid}" in said[0]


def test_a_killed_build_leaves_no_lock_behind(folder: Path) -> None:
    other = hold(folder)
    other.kill()
    other.wait()
    with teacher_lease(folder, wait=False, say=pytest.fail):
        pass


def test_the_lock_holds_until_the_last_worker_that_inherited_it_is_gone(folder: Path) -> None:
    with teacher_lease(folder, wait=False, say=pytest.fail) as lease:
        worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lease.descriptor])
    with pytest.raises(Busy), teacher_lease(folder, wait=False, say=pytest.fail):
        pytest.fail("a worker still writes")
    worker.communicate(b"\n")
    with teacher_lease(folder, wait=False, say=pytest.fail):
        pass


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("a file")
    with (
        pytest.raises(TraceStoreError, match="set root: to a folder that can be written"),
        teacher_lease(tmp_path / "traces" / "abc", wait=True, say=pytest.fail),
    ):
        pytest.fail("there is no folder")


def test_the_descriptor_is_closed_at_the_end(folder: Path) -> None:
    with teacher_lease(folder, wait=False, say=pytest.fail) as lease:
        os.fstat(lease.descriptor)
    with pytest.raises(OSError):
        os.fstat(lease.descriptor)


def test_a_remote_worker_is_waited_for(folder: Path) -> None:
    with teacher_lease(folder, wait=False, say=pytest.fail) as lease:
        lock = lock_remotely(lease.folder, lease.signature, 3)
    with (
        pytest.raises(Busy, match="a worker of a build that was killed still commits on another machine"),
        teacher_lease(folder, wait=False, say=pytest.fail),
    ):
        pytest.fail("a worker still writes")
    said: list[str] = []
    threading.Timer(0.5, lambda: os.close(lock)).start()
    with teacher_lease(folder, wait=True, say=said.append):
        assert len(said) == 1 and said[0].endswith("still commits on another machine: waiting for it")
    assert [file.name for file in folder.iterdir()] == [".lock"]


def test_the_remote_worker_of_an_earlier_build_does_not_begin(folder: Path) -> None:
    with teacher_lease(folder, wait=False, say=pytest.fail) as earlier:
        pass
    with teacher_lease(folder, wait=False, say=pytest.fail) as lease:
        with pytest.raises(
            TraceStoreError, match=r"does not see the folder .* of this build: root: has to be the same"
        ):
            lock_remotely(lease.folder, earlier.signature, 0)
        os.close(lock_remotely(lease.folder, lease.signature, 0))


def test_a_machine_without_the_root_makes_none(tmp_path: Path) -> None:
    with pytest.raises(TraceStoreError, match=r"does not see the folder .*/gone of this build"):
        lock_remotely(tmp_path / "gone", "{}", 0)
    assert not (tmp_path / "gone").exists()


def test_a_worker_that_is_started_again_waits_for_its_predecessor(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_data.lease.PREDECESSOR_SECONDS", 0.2)
    with teacher_lease(folder, wait=False, say=pytest.fail) as lease:
        first = lock_remotely(lease.folder, lease.signature, 0)
        with pytest.raises(TraceStoreError, match="worker 0 of before still writes"):
            lock_remotely(lease.folder, lease.signature, 0)
        await_remote_worker(lease.folder, 0)  # returns though it is still there
        os.close(first)
        os.close(lock_remotely(lease.folder, lease.signature, 0))
