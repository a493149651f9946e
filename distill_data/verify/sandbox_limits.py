"""What a program in the sandbox may use."""

from __future__ import annotations

from dataclasses import dataclass

from distill_data.errors import ConfigError

_KIB, _MIB = 1 << 10, 1 << 20
_OPEN_FILES = 32
_LEAST_MEMORY_MIB = 64  # Python itself takes about half of it


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    `wall_seconds` None is twice `cpu_seconds`. `output_kib` holds for stdout and stderr each, `file_mib` for all
    files of the working folder together. `threads` counts the first one.

    Raises:
        ConfigError: a limit below 1 (memory: below 64), or no wall time.
    """

    cpu_seconds: int = 10
    wall_seconds: float | None = None
    memory_mib: int = 1024
    output_kib: int = 64
    file_mib: int = 16
    threads: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = _LEAST_MEMORY_MIB if name == "memory_mib" else 1
            if name != "wall_seconds" and value < least:
                raise ConfigError(f"sandbox limit {name} is {value}: set it to {least} or more")
        if self.wall_seconds is not None and self.wall_seconds <= 0:
            raise ConfigError(f"sandbox limit wall_seconds is {self.wall_seconds}: set it to more than 0")

    @property
    def wall(self) -> float:
        """Seconds on the clock."""
        return 2.0 * self.cpu_seconds if self.wall_seconds is None else self.wall_seconds

    @property
    def output_bytes(self) -> int:
        """Of stdout and of stderr."""
        return self.output_kib * _KIB

    @property
    def file_bytes(self) -> int:
        """Of all files together."""
        return self.file_mib * _MIB

    @property
    def of_the_kernel(self) -> dict[str, int]:
        """Resource limits by their names in `resource`.

        A core limit of 1 is the kernel's own mark for 'no dump', also where dumps are piped to a program and a limit
        of 0 is passed over (`do_coredump` in `fs/coredump.c`).
        """
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_mib * _MIB,
            "RLIMIT_FSIZE": self.file_bytes,
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_CORE": 1,
            "RLIMIT_MEMLOCK": 0,
        }
