"""The seccomp filter of the sandbox: which system calls a program under test may make, as BPF instructions.

A list of what is allowed, so that calls which this project never heard of are refused too. What is missing on purpose:
every way to a new process or program (fork, vfork, execve; clone only for threads), sockets (only a connected
`socketpair`), io_uring (it opens sockets past any filter), other processes (ptrace, process_vm_readv, pidfd, prlimit
of others, signals to others), links, modes, owners and attributes of files (Landlock does not see those), memory that
no limit counts (memfd, shared memory), and prctl, so that nothing that was set can be taken back.

Sources: seccomp(2), `Documentation/userspace-api/seccomp_filter.rst` and `include/uapi/linux/{filter,seccomp,audit}.h`
of the kernel; the numbers are those of `asm/unistd_64.h` (x86_64) and `asm-generic/unistd.h` (aarch64).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from functools import cache

# name, number on x86_64, number on aarch64 (- where the machine has no such call)
_ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, close 3 57, close_range 436 436,
lseek 8 62, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, getdents64 217 61, access 21 -,
faccessat 269 48, faccessat2 439 439, readlink 89 -, readlinkat 267 78, getcwd 79 17, chdir 80 49, fchdir 81 50,
dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -, pipe2 293 59, ftruncate 77 46, fsync 74 82, fdatasync 75 83,
sendfile 40 71, unlink 87 -, unlinkat 263 35, rename 82 -, renameat 264 38, renameat2 316 276, umask 95 166,
mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, brk 12 214,
futex 202 98, set_robust_list 273 99, get_robust_list 274 100, rseq 334 293, set_tid_address 218 96,
sched_yield 24 124, sched_getaffinity 204 123, exit 60 93, exit_group 231 94, restart_syscall 219 128,
getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, getuid 102 174,
geteuid 107 175, getgid 104 176, getegid 108 177, getgroups 115 158, getresuid 118 148, getresgid 120 150,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -, alarm 37 -, setitimer 38 103, getitimer 36 102,
clock_gettime 228 113, clock_getres 229 114, clock_nanosleep 230 115, nanosleep 35 101, gettimeofday 96 169, time 201 -,
times 100 153, getrusage 98 165, getrlimit 97 163, uname 63 160, sysinfo 99 179, getcpu 309 168, getrandom 318 278,
poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72, epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21,
epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19, recvfrom 45 207, shutdown 48 210
"""
_CONDITIONAL = """
open 2 -, openat 257 56, clone 56 220, clone3 435 435, kill 62 129, tgkill 234 131, fcntl 72 25, ioctl 16 29,
prlimit64 302 261, socketpair 53 199, sendto 44 206
"""

# Where the fields of `struct seccomp_data` stand; argument n is 8 bytes, low half first (both machines).
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_LOAD, _AND, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_WHOLE = 0xFFFFFFFF
_OWN_PID = -1  # a value that only the child knows

_O_TRUNC = 0o1000
_CLONE_THREAD = 0x00010000
_CLONE_NEW_NAMESPACES = 0x7E020000 | 0x00000080
_FCNTL_COMMANDS = [0, 1, 2, 3, 4, 5, 6, 7, 1030]  # dup, flags, locks; never F_SETOWN, which sends signals to others
_IOCTL_REQUESTS = [
    0x5401,
    0x5421,
    0x541B,
    0x5450,
    0x5451,
    0x5413,
]  # is it a terminal, non-blocking, size, close-on-exec

# call -> [(byte offset of the word in the arguments, mask, values of which one must be there)], all of them
_Rules = list[tuple[int, int, list[int]]]
_CONDITIONS: dict[str, _Rules] = {
    # Older Landlock lets O_TRUNC pass on a file that may only be read.
    "open": [(8, _O_TRUNC | 3, [0, 1, 2, _O_TRUNC | 1, _O_TRUNC | 2])],
    "openat": [(16, _O_TRUNC | 3, [0, 1, 2, _O_TRUNC | 1, _O_TRUNC | 2])],
    "clone": [(0, _CLONE_THREAD | _CLONE_NEW_NAMESPACES, [_CLONE_THREAD])],
    "kill": [(0, _WHOLE, [_OWN_PID])],
    "tgkill": [(0, _WHOLE, [_OWN_PID])],
    "fcntl": [(8, _WHOLE, _FCNTL_COMMANDS)],
    "ioctl": [(8, _WHOLE, _IOCTL_REQUESTS)],
    "prlimit64": [(0, _WHOLE, [0]), (16, _WHOLE, [0]), (20, _WHOLE, [0])],  # reads its own limits, sets none
    "socketpair": [(0, _WHOLE, [1])],  # AF_UNIX
    "sendto": [(32, _WHOLE, [0]), (36, _WHOLE, [0])],  # to the other end of the pair, never to an address
}


@dataclass(frozen=True)
class Filter:
    """`struct sock_filter[]` as bytes, and the byte offsets of the 32-bit values that are the child's own pid."""

    instructions: bytes
    own_pid_at: tuple[int, ...]


@cache
def make_filter(machine: str) -> Filter | None:
    """The filter for a machine as `platform.machine()` names it; None where its call numbers are not known here."""
    if machine not in _AUDIT_ARCH:
        return None
    conditional = _numbers(_CONDITIONAL, machine)
    program = [(_LOAD, 0, 0, _ARCH), (_JUMP_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, _KILL_PROCESS)]
    program.append((_LOAD, 0, 0, _NUMBER))
    for number in _numbers(_ALLOWED, machine).values():
        program += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for name, number in conditional.items():
        block = _condition(_CONDITIONS[name]) if name != "clone3" else [_refuse(errno.ENOSYS)]  # libc then uses clone
        program += [(_JUMP_IF_EQUAL, 0, len(block), number), *block]
    program.append(_refuse(errno.EPERM))
    own_pid_at = tuple(8 * place + 4 for place, instruction in enumerate(program) if instruction[3] == _OWN_PID)
    return Filter(b"".join(struct.pack("<HBBI", *line[:3], line[3] & _WHOLE) for line in program), own_pid_at)


def _numbers(table: str, machine: str) -> dict[str, int]:
    """The calls of a table that a machine has, with their numbers there."""
    rows = [entry.split() for entry in table.replace("\n", " ").split(",")]
    column = list(_AUDIT_ARCH).index(machine) + 1
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _condition(rules: _Rules) -> list[tuple[int, int, int, int]]:
    """Allow where every rule finds one of its values; else EPERM. A jump to 'found' skips what is left of its rule."""
    block: list[tuple[int, int, int, int]] = []
    for offset, mask, values in rules:
        block += [(_LOAD, 0, 0, _ARGUMENTS + offset), (_AND, 0, 0, mask)]
        block += [(_JUMP_IF_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
        block.append(_refuse(errno.EPERM))
    return [*block, (_RETURN, 0, 0, _ALLOW)]


def _refuse(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | number)
