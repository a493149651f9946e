"""A Prefect server for `distill-data serve`, where none is named: schedules need one that stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from distill_data.errors import DistillDataError

HOST, PORT = "127.0.0.1", 4200  # Prefect's own
START_SECONDS = 120
# In memory, who holds the slot of a deployment would be forgotten with a server that is killed, and the slot kept.
_KEPT = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


@contextmanager
def prefect_server(logs: Path) -> Iterator[str]:
    """The API's URL of the server that is set, or of one on loopback that ends with this block.

    Args:
        logs: folder for what a server that is started here says.

    Raises:
        DistillDataError: no server could be started.
    """
    if (url := get_current_settings().api.url) is not None:
        yield url
        return
    url = f"http://{HOST}:{PORT}/api"
    if is_healthy(url):
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
        return
    with _started(url, logs / "prefect-server.log"), temporary_settings({PREFECT_API_URL: url}):
        yield url


def is_healthy(url: str) -> bool:
    """Whether a Prefect server answers."""
    try:
        with urlopen(f"{url}/health", timeout=2) as answer:
            return answer.read() == b"true"
    except (URLError, OSError):
        return False


@contextmanager
def _started(url: str, log: Path) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(PORT)]
    with log.open("ab") as output:  # Ctrl-C does not reach it: it has to hear how the runs ended
        server = subprocess.Popen(command, stdout=output, stderr=output, env=_KEPT | os.environ, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise DistillDataError(
                    f"Prefect's server could not be started at {url}: see {log}, or set PREFECT_API_URL to "
                    "that of a running one"
                )
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait(30)
