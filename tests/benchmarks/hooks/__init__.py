"""Looking into processes that a benchmark starts: modules are changed as they are imported, the library knows nothing.

Python runs `sitecustomize` before anything else, in workers too; it imports the module of this package that the
environment names.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "DISTILL_DATA_BENCHMARK_HOOKS"


def environment(hooks: str, **more: str) -> dict[str, str]:
    """The environment of a process that is looked into by a module of this package."""
    here = Path(__file__).parent
    path = [str(here), str(here.parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    ours = {VARIABLE: f"{__name__}.{hooks}", "PYTHONPATH": os.pathsep.join(filter(None, path))}
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **ours, **more}  # imports take what they take users
