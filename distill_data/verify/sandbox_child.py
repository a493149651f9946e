"""What runs first in the sandbox's process: takes away its rights for good, then runs the program in it.

Compiled by `sandbox_start.py` and never imported: it runs in a Python of its own, and uses only modules that load fast
(importing `signal` would cost a fifth of the whole run). It locks the process down, says `s` (all of it is set) on the
report descriptor, and runs the program as `__main__`. With checks it then says `r`; only now does the parent hand over
the checks and a random token, and the token goes back after the last check. `x` and a text say which protection could
not be had; `m` says that memory ran out.

Sources: landlock(7), capabilities(7), prctl(2), getrlimit(2), seccomp(2), core(5).
"""

import builtins
import ctypes
import marshal
import os
import resource
import sys

# Taken now, so that a program which replaces functions of a module changes nothing here.
_read, _write, _close, _exit = os.read, os.write, os.close, os._exit
_exec, _compile, _loads = exec, compile, marshal.loads
_settrace, _setprofile = sys.settrace, sys.setprofile
_BUILTINS = builtins.__dict__

_LIBC = ctypes.CDLL(None, use_errno=True)
_WORD = ctypes.c_void_p  # takes numbers and bytes alike, and always passes a whole register
_LIBC.syscall.argtypes, _LIBC.syscall.restype = [ctypes.c_long, *[_WORD] * 4], ctypes.c_long
_LIBC.prctl.argtypes = [ctypes.c_int, *[_WORD] * 4]
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on x86_64 and aarch64
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14
# Rights over files that Landlock knows since its ABI 1, 2, 3 and 5; the others say nothing about files.
_FILE_RIGHTS = ((5, 16), (3, 15), (2, 14), (1, 13))


class Missing(Exception):
    """A protection that this machine does not give."""


def main(request: dict) -> None:
    """Lock down, run."""
    report = request["report"]
    try:
        _lock_down(request)
    except (Missing, OSError, ValueError) as error:
        _write(report, f"x{error}".encode())
        _exit(1)
    _write(report, b"s")
    try:
        _run(request["program"], report, request["checks"])
    except MemoryError:
        _write(report, b"m")
        raise


def _run(program: bytes, report: int, checks: "tuple[int, int] | None") -> None:
    """The program as `__main__`, then the checks in its names; whatever it raises ends the process."""
    module = type(sys)("__main__")
    sys.modules["__main__"], sys.argv = module, ["answer.py"]
    os.environ.clear()
    original = _BUILTINS.copy()
    _exec(_compile(program, "answer.py", "exec", dont_inherit=True), module.__dict__)
    if checks is None:
        return  # Python ends as usual: it waits for threads and flushes
    go, blob = checks
    _write(report, b"r")
    _read(go, 1)
    text, token = _loads(_read_all(blob))
    _close(go)
    _BUILTINS.update(original)  # `assert` needs no name, but what a check calls does
    module.__dict__["__builtins__"] = builtins
    _settrace(None)
    _setprofile(None)
    _exec(_compile(text, "checks.py", "exec", dont_inherit=True), module.__dict__)
    _write(report, token)
    _exit(0)


def _read_all(descriptor: int) -> bytes:
    data = b""
    while chunk := _read(descriptor, 1 << 20):
        data += chunk
    _close(descriptor)
    return data


def _lock_down(request: dict) -> None:
    """Every protection, or the name of the one that cannot be had.

    Raises:
        Missing: the kernel refused one.
    """
    os.umask(0o077)
    _need(_LIBC.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "parent-death signal")
    if os.getppid() != request["parent"]:
        raise Missing("parent-death signal: the parent is gone")
    for name, value in request["limits"].items():
        _limit(getattr(resource, name), value)
    _need(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _restrict_files(request["folder"], request["readable"])
    # Version 3 of the call, this process, three empty sets of two words each.
    _need(_LIBC.capset(ctypes.create_string_buffer(b"\x22\x05\x08\x20\0\0\0\0"), bytes(24)), "capabilities")
    _filter_calls(bytearray(request["filter"]), request["own_pid_at"])


def _limit(kind: int, value: int) -> None:
    """Soft and hard limit, so that it cannot be raised again; a smaller hard limit that was there stays."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _restrict_files(folder: str, readable: list) -> None:
    """Landlock: `readable` may be read, files in `folder` may be made, written and removed, the rest is closed."""
    abi = _need(_LIBC.syscall(_CREATE_RULESET, None, 0, 1, 0), "Landlock")
    rights = next((1 << bits) - 1 for since, bits in _FILE_RIGHTS if abi >= since)
    # Files, then TCP (ABI 4), then abstract sockets and signals (ABI 6): the last two the filter refuses as well.
    words = [rights] + [3] * (abi >= 4) + [3] * (abi >= 6)
    attributes = b"".join(word.to_bytes(8, "little") for word in words)
    ruleset = _need(_LIBC.syscall(_CREATE_RULESET, attributes, len(attributes), 0, 0), "Landlock")
    for path in readable:
        _grant(ruleset, path, (_READ_FILE | _READ_DIR) & rights)
    _grant(ruleset, "/dev/null", (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
    writing = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
    _grant(ruleset, folder, writing & rights)
    no_audit = int(abi >= 7)  # LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF: refusals in a loop would fill the audit log
    _need(_LIBC.syscall(_RESTRICT_SELF, ruleset, no_audit, 0, 0), "Landlock")
    _close(ruleset)


def _grant(ruleset: int, path: str, rights: int) -> None:
    """One rule of kind `path beneath`; a path that is not there needs none."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= ~_READ_DIR
    rule = rights.to_bytes(8, "little") + place.to_bytes(4, "little")
    _need(_LIBC.syscall(_ADD_RULE, ruleset, 1, rule, 0), "Landlock")
    _close(place)


def _filter_calls(instructions: bytearray, own_pid_at: tuple) -> None:
    """seccomp, last: nothing above could be done after it."""
    for place in own_pid_at:
        instructions[place : place + 4] = os.getpid().to_bytes(4, "little")
    held = ctypes.create_string_buffer(bytes(instructions), len(instructions))
    address = ctypes.addressof(held).to_bytes(8, "little")
    header = (len(instructions) // 8).to_bytes(2, "little") + bytes(6) + address  # struct sock_fprog
    _need(_LIBC.prctl(_PR_SET_SECCOMP, 2, header, 0, 0), "seccomp")


def _need(result: int, protection: str) -> int:
    if result < 0:
        raise Missing(f"{protection}: {os.strerror(ctypes.get_errno())}")
    return result
