"""How loops over bytes are compiled: by numba, once per machine, with what it made kept beside this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Loop = TypeVar("Loop", bound=Callable[..., Any])

_ANY_ORDER = {"reassoc", "nsz"}  # of LLVM's fast-math flags those that let a sum be several ones side by side


def compiled(loop: Loop) -> Loop:
    """A loop over arrays as machine code, made at its first call; it lets other threads run.

    Numba keeps it in `__pycache__`, or in the user's cache folder where that cannot be written (`NUMBA_CACHE_DIR` names
    another); where neither can be, every process compiles for itself.
    """
    return _made(loop)


def compiled_in_any_order(loop: Loop) -> Loop:
    """The same, where sums may be taken in another order than written."""
    return _made(loop, fastmath=_ANY_ORDER)


def _made(loop: Loop, **options: Any) -> Loop:
    try:
        return cast(Loop, njit(cache=True, nogil=True, **options)(loop))
    except RuntimeError:  # no place for a cache
        return cast(Loop, njit(nogil=True, **options)(loop))
