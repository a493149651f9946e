"""What the pool needs of a worker, wherever it runs: a process of this machine or an actor of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol


class Handle(Protocol):
    """One running worker as its pool holds it."""

    connection: Connection  # readable when there is something to receive
    log: Path

    @property
    def waiting(self) -> bool:
        """Whether it has no process yet because no machine has a place for it."""
        ...

    def send(self, message: Any) -> None:
        """Send a message; one to a worker that is gone is dropped, its death is found when it is next received from."""
        ...

    def received(self) -> Iterator[Any]:
        """The messages that have come.

        Raises:
            EOFError: the worker is gone, and everything that it said was received.
        """
        ...

    def how_it_ended(self) -> str:
        """End what is left of the worker and its engine, and say how it died; nothing of it writes afterwards."""
        ...

    def terminate(self) -> None:
        """Ask it to commit what it finished and leave."""
        ...

    def kill(self) -> None:
        """End it and its engine at once."""
        ...

    def end(self, seconds: float) -> None:
        """Give it this long to leave by itself."""
        ...
