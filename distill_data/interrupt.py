"""Ctrl-C and SIGTERM: teacher workers commit what they finished, then everything ends; a second one ends it at once.

Prefect's own server is ended by the same Ctrl-C, and a client that then wants to tell it so retries for minutes; so
the process leaves by itself once its children are gone. The files decide what is done, not Prefect's run states.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import psutil

from distill_data.session import close_pools

COMMIT_SECONDS = 60.0


def leave_on_interrupt(say: Callable[[], object]) -> None:
    """Install the handler; `say` is called when all that was finished is committed.

    With a server of one's own (PREFECT_API_URL) KeyboardInterrupt is raised instead, so that it learns of the end.
    """

    def first(*_: object) -> None:
        _on_both(second)
        children = psutil.Process().children(recursive=True)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.terminate()
        close_pools()  # also those whose workers are no children of this process
        psutil.wait_procs(children, timeout=COMMIT_SECONDS)
        if os.environ.get("PREFECT_API_URL"):
            raise KeyboardInterrupt
        say()
        os._exit(1)

    def second(*_: object) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(1)

    _on_both(first)


def _on_both(handler: Callable[..., object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
