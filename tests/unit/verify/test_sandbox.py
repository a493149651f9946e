"""Attacks on what surrounds the sandbox: processes, network, secrets, signals."""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from distill_data.verify.sandbox import check_sandbox
from tests.unit.verify.attempts import REFUSED, attempt, clean, run  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("clean")

RAW = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall(*map(ctypes.c_long, {arguments})) == -1:
    raise OSError(ctypes.get_errno(), "refused")
"""
# Calls whose numbers differ; all others used below are the same on both machines.
X86 = platform.machine() == "x86_64"
PTRACE, PROCESS_VM_READV, UNSHARE, PRCTL, SOCKET, PRLIMIT = (
    (101, 310, 272, 157, 41, 302) if X86 else (117, 270, 97, 167, 198, 261)
)
RT_SIGQUEUEINFO, EXECVE, MEMFD, SECCOMP, MOUNT = (129, 59, 319, 317, 165) if X86 else (138, 221, 279, 277, 40)


def test_the_probe_finds_nothing_possible() -> None:
    assert check_sandbox() is None


@pytest.mark.parametrize(
    "code",
    [
        "while True: os.fork()",
        "os.forkpty()",
        "os.posix_spawn(sys.executable, [sys.executable], {})",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
        "os.execv('/bin/true', ['true'])",
        f"{RAW.format(arguments=[UNSHARE, 0x10000000])}",
        f"{RAW.format(arguments=[EXECVE, 0, 0, 0])}",
        f"{RAW.format(arguments=[MOUNT, 0, 0, 0, 0, 0])}",
    ],
)
def test_no_second_process_or_program(code: str) -> None:
    assert attempt(code) in REFUSED


def test_a_daemon_cannot_outlive_its_program(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    result = run(f"""
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(0.5)
                open({str(marker)!r}, "w")
    """)
    assert result.exit_code == 1 and "PermissionError" in result.stderr
    time.sleep(0.7)
    assert not marker.exists()


def test_the_program_dies_with_whoever_started_it(tmp_path: Path) -> None:
    code = (
        "from distill_data.verify.sandbox import *; print('on', flush=True);"
        "run_python('import time, signal\\nfor n in range(1, 32):\\n    try: signal.signal(n, signal.SIG_IGN)\\n"
        "    except OSError: pass\\ntime.sleep(60)', '', Limits(wall_seconds=60))"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # a killed parent leaves its working folder
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"on\n"
        until = time.monotonic() + 10
        while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)  # by now it is locked down and sleeps
        assert [child.is_running() for child in children] == [True]
        parent.kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_nothing_arrives_over_the_network(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            server.listen()
        server.settimeout(0.2)
        place = server.getsockname()
        said = attempt(f"import socket; s = socket.socket(2, {int(kind)}); s.connect({place}); s.send(b'x')")
        with pytest.raises(TimeoutError):
            server.recv(1) if kind == socket.SOCK_DGRAM else server.accept()
        with socket.socket(socket.AF_INET, kind) as control:  # the server would have seen it
            control.connect(place)
            control.send(b"x")
            assert server.recv(1) if kind == socket.SOCK_DGRAM else server.accept()
    assert said in REFUSED


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socket(socket.AF_INET6)",
        "import socket; socket.socket(16, socket.SOCK_RAW)",
        "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', '/dev/log')",
        "import socket; socket.socketpair()[0].sendmsg([b'x'])",
        f"{RAW.format(arguments=[SOCKET, 2, 1, 0])}",
        f"{RAW.format(arguments=[0x40000000 + SOCKET, 2, 1, 0])}",
        f"{RAW.format(arguments=[425, 8, 0])}",  # io_uring_setup
    ],
)
def test_no_way_to_a_socket(code: str) -> None:
    assert attempt(code) in REFUSED


@pytest.mark.skipif(not X86, reason="the 32-bit calls are x86's")
def test_the_32_bit_calls_end_the_program() -> None:
    result = run("""
        import ctypes, mmap
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, 20 (getpid); int 0x80; ret
        print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
    """)
    assert (result.outcome, result.stdout) == ("killed", "")


@pytest.mark.parametrize("name", ["environ", "cmdline", "maps", "mem", "cwd/pyproject.toml", "root/etc/passwd"])
def test_secrets_of_other_processes_stay_theirs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_TOKEN", "planted-secret")
    assert run("import os; print(os.environ, os.getenv('PLANTED_TOKEN'))").stdout == "environ({}) None\n"
    for pid in (os.getpid(), 1, "self"):
        assert attempt(f"open('/proc/{pid}/{name}', 'rb').read()") in REFUSED | {"FileNotFoundError 2"}
    assert attempt(f"os.listdir('/proc/{os.getpid()}/fd')") in REFUSED


@pytest.mark.parametrize(
    "code",
    [
        "os.kill({parent}, 0)",
        "os.kill(0, 0)",
        "os.kill(-1, 0)",
        "os.killpg(os.getpgrp(), 0)",
        "os.pidfd_open({parent})",
        "import fcntl; fcntl.fcntl(1, fcntl.F_SETOWN, {parent})",
        "import fcntl; fcntl.ioctl(1, 0x8901, ({parent}).to_bytes(4, 'little'))",  # FIOSETOWN
        "import resource; resource.prlimit({parent}, resource.RLIMIT_NOFILE)",
        "os.setpriority(os.PRIO_PROCESS, {parent}, 19)",
        "os.sched_setaffinity({parent}, [0])",
        RAW.format(arguments=f"[{PTRACE}, 0x4206, {{parent}}, 0, 0]"),  # PTRACE_SEIZE
        RAW.format(arguments=f"[{PROCESS_VM_READV}, {{parent}}, 0, 0, 0, 0, 0]"),
        RAW.format(arguments=f"[{RT_SIGQUEUEINFO}, {{parent}}, 0, 0]"),
    ],
)
def test_other_processes_are_out_of_reach(code: str) -> None:
    assert attempt(code.format(parent=os.getpid())) in REFUSED


@pytest.mark.parametrize(
    "code",
    [
        f"{RAW.format(arguments=[PRCTL, 1, 0, 0, 0, 0])}",  # no longer die with the parent
        f"{RAW.format(arguments=[PRCTL, 4, 1, 0, 0, 0])}",
        f"{RAW.format(arguments=[SECCOMP, 1, 0, 0])}",
        f"{RAW.format(arguments=[MEMFD, 0, 0])}",  # memory that no limit counts
        "os.setsid()",
        "os.setuid(0)",
        "os.setgroups([])",
    ],
)
def test_nothing_that_was_set_can_be_taken_back(code: str) -> None:
    assert attempt(code) in REFUSED


def test_a_program_may_end_itself_only() -> None:
    result = run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert (result.outcome, result.exit_code) == ("killed", -signal.SIGKILL)
