"""The filter's decisions on both machines, and a sandbox that refuses where a protection is missing."""

from __future__ import annotations

import errno
import platform
import struct
import subprocess
import sys

import pytest

from distill_data.verify import sandbox
from distill_data.verify.sandbox import Limits, run_python
from distill_data.verify.sandbox_filter import Filter, make_filter

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
PID = 4321
THREAD, FORK = 0x3D0F00, 0x1200011

# call: number on x86_64, number on aarch64, arguments, decision
DECISIONS: list[tuple[str, int, int, list[int], int]] = [
    ("read", 0, 63, [], ALLOW),
    ("futex", 202, 98, [], ALLOW),
    ("openat to write", 257, 56, [0, 0, 0o1101], ALLOW),  # Landlock decides where
    ("openat to read", 257, 56, [0, 0, 0o2000000], ALLOW),
    ("openat that empties a file it may only read", 257, 56, [0, 0, 0o1000], EPERM),
    ("a thread", 56, 220, [THREAD], ALLOW),
    ("a process", 56, 220, [FORK], EPERM),
    ("a thread in a new network", 56, 220, [THREAD | 0x40000000], EPERM),
    ("clone3", 435, 435, [], ENOSYS),
    ("signal to itself", 62, 129, [PID, 9], ALLOW),
    ("signal to another", 62, 129, [PID + 1, 9], EPERM),
    ("signal to all", 62, 129, [0xFFFFFFFF, 9], EPERM),
    ("signal to its thread", 234, 131, [PID, PID + 1, 9], ALLOW),
    ("signal to another's thread", 234, 131, [1, 1, 9], EPERM),
    ("own limits", 302, 261, [0, 7, 0, 1 << 40], ALLOW),
    ("own limits, set", 302, 261, [0, 7, 1 << 40, 0], EPERM),
    ("limits of another", 302, 261, [1, 7, 0, 0], EPERM),
    ("pair of sockets", 53, 199, [1, 1], ALLOW),
    ("pair of another family", 53, 199, [2, 1], EPERM),
    ("send in a pair", 44, 206, [3, 1 << 40, 1, 0, 0], ALLOW),
    ("send to an address", 44, 206, [3, 1 << 40, 1, 0, 1 << 32], EPERM),
    ("dup of a descriptor", 72, 25, [3, 1030], ALLOW),
    ("whom a descriptor signals", 72, 25, [3, 8, PID], EPERM),
    ("what a terminal reads", 16, 29, [0, 0x5412], EPERM),
    ("socket", 41, 198, [2], EPERM),
    ("execve", 59, 221, [], EPERM),
    ("ptrace", 101, 117, [], EPERM),
    ("io_uring_setup", 425, 425, [], EPERM),
    ("a call of tomorrow", 900, 900, [], EPERM),
]


def decide(rules: Filter, number: int, arguments: list[int], arch: int) -> int:
    """Run the instructions as the kernel would (linux/filter.h): what the filter returns for one call."""
    code = bytearray(rules.instructions)
    for place in rules.own_pid_at:
        code[place : place + 4] = struct.pack("<I", PID)
    data = struct.pack("<IIQ6Q", number, arch, 0, *(arguments + [0] * 6)[:6])
    at = value = 0
    while True:
        kind, when_true, when_false, constant = struct.unpack_from("<HBBI", code, 8 * at)
        at += 1
        if kind == 0x20:
            value = struct.unpack_from("<I", data, constant)[0]
        elif kind == 0x54:
            value &= constant
        elif kind == 0x15:
            at += when_true if value == constant else when_false
        else:
            assert kind == 0x06
            return constant


@pytest.mark.parametrize("case", DECISIONS, ids=lambda case: case[0])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_decisions(machine: str, case: tuple[str, int, int, list[int], int]) -> None:
    _, x86_64, aarch64, arguments, decision = case
    rules = make_filter(machine)
    assert rules is not None and len(rules.own_pid_at) == 2
    assert decide(rules, x86_64 if machine == "x86_64" else aarch64, arguments, ARCH[machine]) == decision


def test_calls_of_another_machine_end_the_process() -> None:
    for machine in ARCH:
        rules = make_filter(machine)
        assert rules is not None and decide(rules, 0, [], 0x40000003) == KILL  # i386


def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(sandbox, "_not_here", sandbox._not_here.__wrapped__)
    result = run_python("print('ran')", "", Limits())
    assert (result.outcome, result.exit_code, result.stdout) == ("refused", None, "")
    assert "riscv64" in result.stderr and result.stderr.endswith("judge code on Linux, on x86_64 or aarch64")


WITHOUT = """
import ctypes, struct
libc = ctypes.CDLL(None)
def without(number, first_argument):
    code = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16)]  # number of the call, then its first argument
    code += [(0x15, 0, 0, 0) if first_argument is None else (0x15, 0, 1, first_argument)]
    code += [(6, 0, 0, 0x50000 | 38), (6, 0, 0, 0x7FFF0000)]
    held = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in code))
    libc.prctl(38, 1, 0, 0, 0)
    program = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(held))
    assert libc.prctl(22, ctypes.c_long(2), program, 0, 0) == 0
without({number}, {first_argument})
from distill_data.verify.sandbox import Limits, check_sandbox, run_python
result = run_python("print('ran')", "", Limits())
assert (result.outcome, result.stdout) == ("refused", ""), result
assert result.stderr == check_sandbox()
print(result.stderr)
"""
PRCTL = 157 if platform.machine() == "x86_64" else 167


@pytest.mark.parametrize(
    ("number", "first_argument", "protection", "advice"),
    [
        (444, None, "Landlock", "use Linux 5.13 or newer with landlock"),
        (446, None, "Landlock", "use Linux 5.13 or newer with landlock"),
        (PRCTL, 22, "seccomp", "use a kernel with CONFIG_SECCOMP_FILTER"),
        (PRCTL, 1, "parent-death signal", "judge code on another machine"),
        (434, None, "pidfd", "a container that allows pidfd_open"),
    ],
)
def test_without_a_protection_nothing_runs(
    number: int, first_argument: int | None, protection: str, advice: str
) -> None:
    """A filter over the whole parent takes one call away, as a container's would."""
    code = WITHOUT.format(number=number, first_argument=first_argument)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert f"({protection}: Function not implemented)" in done.stdout and advice in done.stdout
