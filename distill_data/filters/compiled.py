"""How loops over bytes are compiled: by numba, once per machine, with what it made kept beside this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])


def compiled(loop: Loop) -> Loop:
    """A loop over arrays as machine code, made at its first call; it lets other threads run.

    Numba keeps it in `__pycache__`, or in the user's cache folder where that cannot be written (`NUMBA_CACHE_DIR` names
    another); where neither can be, every process compiles for itself.
    """
    try:
        return cast(Loop, njit(cache=True, nogil=True)(loop))
    except RuntimeError:  # no place for a cache
        return cast(Loop, njit(nogil=True)(loop))
