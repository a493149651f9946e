"""A worker on a Ray cluster, as its pool holds it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from distill_data.lease import await_remote_worker
from distill_data.teachers.ray_worker import Ended

KILL_SECONDS = 10.0  # for an actor to end its worker; then Ray ends the actor


class RayHandle:
    """A worker in an actor. A thread passes what it says into a pipe, whose end is the end of the worker."""

    def __init__(self, ray: Any, actor: Any, number: int, log: Path, store: Path) -> None:
        """`ray` is the module; `store` the folder that the worker commits into."""
        self.log = log
        self.waiting = True  # for a place in the cluster
        self.connection, self._spoken = Pipe(duplex=False)
        self._ray = ray
        self._actor = actor
        self._number = number
        self._store = store
        self._sent = 0
        self._told_to_end_at: float | None = None
        self._how = "Ray ended its actor"
        self._listener = threading.Thread(target=self._listen, name=f"ray-{number}", daemon=True)
        self._listener.start()

    def send(self, message: Any) -> None:
        """Send a message; one to a worker that is gone is dropped, its death is found when it is next received from."""
        self._actor.send.options(concurrency_group="orders").remote(self._sent, message)
        self._sent += 1

    def received(self) -> Iterator[Any]:
        """The messages that have come.

        Raises:
            EOFError: the worker is gone, and everything that it said was received.
        """
        while self.connection.poll():
            yield self.connection.recv()

    def how_it_ended(self) -> str:
        """End the actor, wait until nothing of it writes any more, and say how it died."""
        self._end_actor()
        if not self.waiting:
            await_remote_worker(self._store, self._number)
        return self._how

    def terminate(self) -> None:
        """Ask it to commit what it finished and leave."""
        if self.waiting:
            self._end_actor()
        else:
            self._actor.terminate.options(concurrency_group="endings").remote()

    def kill(self) -> None:
        """End it and its engine at once, or its actor where that does not answer."""
        now = time.monotonic()
        if self.waiting or (self._told_to_end_at is not None and now - self._told_to_end_at > KILL_SECONDS):
            self._end_actor()
        elif self._told_to_end_at is None:
            self._told_to_end_at = now
            self._actor.kill.options(concurrency_group="endings").remote()

    def end(self, seconds: float) -> None:
        """Give it this long to leave by itself."""
        for patience in (seconds, KILL_SECONDS):
            self._hear_out(patience)
            if self._listener.is_alive():
                self.kill()
        self.how_it_ended()
        self.connection.close()

    def _hear_out(self, seconds: float) -> None:
        """Read until the worker has ended, or this long."""
        deadline = time.monotonic() + seconds
        with suppress(EOFError):
            while time.monotonic() < deadline:
                wait([self.connection], timeout=max(0.0, min(0.5, deadline - time.monotonic())))
                for _ in self.received():
                    pass
        self._listener.join(timeout=max(0.0, deadline - time.monotonic()))

    def _end_actor(self) -> None:
        self._ray.kill(self._actor)

    def _listen(self) -> None:
        try:
            for said in self._actor.messages.options(num_returns="streaming").remote():
                messages = self._ray.get(said)
                self.waiting = False
                for message in messages:
                    if isinstance(message, Ended):
                        self._how = message.how
                    else:
                        self._spoken.send(message)
        except self._ray.exceptions.RayError as error:
            self._how = _how(error)
        except OSError:
            pass  # nobody reads any more
        finally:
            self._spoken.close()


def _how(error: Exception) -> str:
    """How Ray says that an actor died, in a few words."""
    text = " ".join(str(error).split())
    if "node has died" in text or "node was terminated" in text or "NodeDiedError" in text:
        return "its node left the Ray cluster"
    if "memory" in text.lower():
        return "ended by Ray: its node ran out of memory"
    return f"its Ray actor died: {text[:300]}"
