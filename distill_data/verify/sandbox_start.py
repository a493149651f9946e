"""What the sandbox's process is started with: its command, its one request, and checks that it gets later."""

from __future__ import annotations

import fcntl
import marshal
import os
import platform
import secrets
import sys
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

from distill_data.verify.sandbox_filter import make_filter
from distill_data.verify.sandbox_limits import Limits

_CHILD = Path(__file__).with_name("sandbox_child.py")
_START = (
    "import marshal, os, sys; file = int(sys.argv[1]); request = marshal.loads(os.read(file, os.fstat(file).st_size)); "
    "os.close(file); child = {}; exec(request['code'], child); child['main'](request)"
)
_FLAGS = ["-s", "-S", "-P", "-B", "-X", "utf8"]  # what -I implies, except that the hash seed is read
ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # a set has the same order in every run; gone before the program starts
_LIBRARIES = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"]
_DATA = ["/dev/urandom", "/etc/localtime", "/usr/share/zoneinfo"]


def command(request_file: int) -> list[str]:
    """The interpreter behind any virtual environment, without site packages."""
    return [os.path.realpath(sys.executable), *_FLAGS, "-c", _START, str(request_file)]


@cache
def _readable() -> list[str]:
    """What a program may read: Python's library, shared libraries that it loads, clock and random data."""
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), f"{sys.base_prefix}/lib"]
    return list(dict.fromkeys([*python, *_LIBRARIES, *_DATA]))


@cache
def _child_code() -> CodeType:
    """Compiled once: it would take a tenth of every run."""
    return compile(_CHILD.read_text(encoding="utf-8"), _CHILD.name, "exec", dont_inherit=True)


def rules_of(limits: Limits, folder: str) -> dict[str, Any]:
    """What the child needs to lock itself down."""
    rules = make_filter(platform.machine())
    assert rules is not None
    return {
        "code": _child_code(),
        "parent": os.getpid(),
        "limits": limits.of_the_kernel,
        "folder": folder,
        "readable": _readable(),
        "filter": rules.instructions,
        "own_pid_at": rules.own_pid_at,
    }


def pipe_of(opened: ExitStack) -> tuple[int, int]:
    """A pipe's reading and writing end, closed with `opened`."""
    ends = os.pipe()
    for end in ends:
        opened.callback(os.close, end)
    return ends


def file_of(opened: ExitStack, content: bytes) -> int:
    """A file in memory that can only be read: no pipe that fills up, and nothing on the disk."""
    file = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    opened.callback(os.close, file)
    os.write(file, content)
    os.lseek(file, 0, os.SEEK_SET)
    fcntl.fcntl(
        file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    )
    return file


@dataclass(frozen=True)
class Handover:
    """Checks and a token that stay with the parent until the program's last line was reached."""

    token: bytes
    content: bytes
    file: int
    go: int
    child_ends: tuple[int, int]

    @classmethod
    def make(cls, opened: ExitStack, checks: str) -> Handover:
        """An empty file in memory, which the child can only read, and a pipe that says when it has been filled."""
        token = secrets.token_hex(16).encode()
        file = os.memfd_create("checks")
        opened.callback(os.close, file)
        child_file = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
        opened.callback(os.close, child_file)
        child_go, go = pipe_of(opened)
        content = marshal.dumps((checks.encode("utf-8", "replace"), token))
        return cls(token, content, file, go, (child_go, child_file))

    def release(self) -> None:
        """Let the child have them; neither write can block."""
        os.write(self.file, self.content)
        os.write(self.go, b"g")
