"""Attacks on files outside the working folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distill_data.verify import sandbox_start
from tests.unit.verify.attempts import REFUSED, attempt, clean  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("clean")


@pytest.mark.parametrize("folder", ["{tmp_path}", "/tmp", "/dev/shm", "/var/tmp", "{home}", "{cwd}", "..", "/"])
def test_no_file_outside_is_written_or_listed(folder: str, tmp_path: Path) -> None:
    folder = folder.format(tmp_path=tmp_path, home=Path.home(), cwd=Path.cwd())
    assert attempt(f"open({folder + '/sandbox-wrote-this'!r}, 'w')") in REFUSED
    assert attempt(f"os.open({folder!r}, os.O_TMPFILE | os.O_RDWR)") in REFUSED
    assert attempt(f"os.listdir({folder!r})") in REFUSED
    assert attempt(f"os.chdir({folder!r}); os.open('sandbox-wrote-this', os.O_CREAT | os.O_RDWR)") in REFUSED
    assert not os.path.lexists(os.path.join(folder, "sandbox-wrote-this"))


READS = [
    "open({victim!r})",
    "os.open({victim!r}, os.O_RDONLY)",
    "open('/proc/self/cwd/../../victim')",
    "open('../../victim')",
    "fd = os.open('..', os.O_PATH); os.open('../victim', os.O_RDONLY, dir_fd=fd)",
    "fd = os.open({victim!r}, os.O_PATH); open(f'/proc/self/fd/{{fd}}')",
]
CHANGES = [
    "open({victim!r}, 'a')",
    "os.open({victim!r}, os.O_RDONLY | os.O_TRUNC)",
    "os.truncate({victim!r}, 0)",
    "os.remove({victim!r})",
    "os.rename({victim!r}, 'mine')",
    "open('mine', 'w'); os.replace('mine', {victim!r})",
    "os.chmod({victim!r}, 0o777)",
    "os.chown({victim!r}, os.getuid(), os.getgid())",
    "os.utime({victim!r}, (0, 0))",
    "os.setxattr({victim!r}, 'user.x', b'x')",
    "os.symlink({victim!r}, 'mine')",
    "os.link({victim!r}, 'mine')",
    "os.mkfifo('mine')",
    "os.mkdir('mine')",
    "os.chroot('.')",
]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    file = tmp_path / "victim"
    file.write_text("victim")
    return file


@pytest.mark.parametrize("code", READS)
def test_a_file_outside_is_not_read(code: str, victim: Path) -> None:
    assert attempt(code.format(victim=str(victim))) in REFUSED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_root_has_no_capabilities(victim: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim.chmod(0o600)
    os.chown(victim, 12345, 12345)
    allowed = [*sandbox_start._readable(), str(victim)]
    monkeypatch.setattr(sandbox_start, "_readable", lambda: allowed)
    assert attempt(f"open({str(victim)!r})") == "PermissionError 13"
    os.chown(victim, 0, 0)
    assert attempt(f"open({str(victim)!r})") == "DONE"


@pytest.mark.parametrize("readable", [False, True])
@pytest.mark.parametrize("code", CHANGES)
def test_a_file_outside_is_not_changed(
    code: str, readable: bool, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that may be read, as Python's own library may: root could write there."""
    before = victim.stat()
    allowed = [*sandbox_start._readable(), *([str(victim)] if readable else [])]
    monkeypatch.setattr(sandbox_start, "_readable", lambda: allowed)
    assert attempt(code.format(victim=str(victim))) in REFUSED | {"OSError 18"}
    after = victim.stat()
    assert victim.read_text() == "victim"
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
