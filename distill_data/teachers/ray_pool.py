"""Workers on a Ray cluster: the only module that imports Ray.

Ray says where a worker runs, gives it its GPUs, carries small messages, and tells when a node is gone; it restarts
nothing and retries nothing, as the pool does that. Traces go from the worker's node straight into `root`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill_data import teacher_config
from distill_data.errors import ConfigError, TeacherError, reason_of
from distill_data.lease import Lease
from distill_data.teachers.ray_handle import RayHandle
from distill_data.teachers.ray_worker import Replica, Start

CONNECT_SECONDS = 10.0  # to reach the cluster's head
PLACE_SECONDS = 15.0  # without any place, after which it is said what is asked for
_GROUPS = {"orders": 1, "endings": 1}  # threads of an actor beside that of `messages`


class RayPlaces:
    """The places that a teacher's workers get on a cluster. It is joined when the first one starts."""

    def __init__(self, cluster: teacher_config.Ray, teacher: teacher_config.Teacher, lease: Lease, *, verbose: bool):
        self._cluster = cluster
        self._engine = teacher.engine
        self._lease = lease
        self._verbose = verbose
        self._asked = asked_of(cluster, teacher)
        self._joined_here = False
        self._waiting_since: float | None = None
        self._said = (0.0, "")

    def start(self, number: int, log: Path) -> RayHandle:
        """Ask for a place for worker `number`; it starts there when there is one.

        Raises:
            ConfigError: Ray is not installed.
            TeacherError: there is no such cluster.
        """
        ray = self._join()
        start = Start(number, self._engine, log, self._lease.folder, self._lease.signature, self._verbose)
        kind = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=_GROUPS, **self._asked)(Replica)
        self._waiting_since = None
        return RayHandle(ray, kind.remote(start), number, log, self._lease.folder)

    def lacking(self, workers: int) -> str:
        """Where this many workers wait and none has a place: after a while, what they ask for and the cluster has."""
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        if now - self._waiting_since < PLACE_SECONDS:
            return ""
        if now - self._said[0] > PLACE_SECONDS:
            import ray

            has, free = ray.cluster_resources(), ray.available_resources()
            names = sorted({"CPU", "GPU", *self._asked["resources"]})
            there = ", ".join(f"{free.get(name, 0):g} of {has.get(name, 0):g} {name} free" for name in names)
            asked = " and ".join(f"{amount:g} {name}" for name, amount in _by_name(self._asked).items())
            self._said = now, f"a Ray node with {asked or 'nothing'} for each of {workers} workers; there is {there}"
        return self._said[1]

    def leave(self) -> None:
        """Leave the cluster, if it was joined here."""
        if self._joined_here:
            import ray

            ray.shutdown()
            self._joined_here = False

    def _join(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with _own_signals():
            try:
                import ray
            except ImportError:
                raise ConfigError("teacher.engine.ray needs Ray: pip install 'distill-data[ray]'") from None
            if ray.is_initialized():
                return ray
            address, level = self._cluster.address, logging.INFO if self._verbose else logging.ERROR
            try:
                _require_listener(address)
                ray.init(address=address, log_to_driver=self._verbose, logging_level=level)
            except (ConnectionError, RuntimeError, ValueError, OSError) as error:
                raise TeacherError(
                    f"there is no Ray cluster at {address} ({reason_of(error)}): start one with `ray start --head`, "
                    "join this machine to one, or set teacher.engine.ray.address"
                ) from error
        self._joined_here = True
        return ray


def asked_of(cluster: teacher_config.Ray, teacher: teacher_config.Teacher) -> dict[str, Any]:
    """What a replica asks Ray for. All of it is on one node, so the GPUs of a tensor-parallel replica are together."""
    engine = teacher.engine
    gpus = engine.tensor_parallel_size * engine.options.get("pipeline_parallel_size", 1)
    by_default = 0 if teacher.backend == "replay" else gpus
    return {
        "num_cpus": cluster.num_cpus,
        "num_gpus": by_default if cluster.num_gpus is None else cluster.num_gpus,
        "resources": dict(cluster.resources),
    }


def _by_name(asked: dict[str, Any]) -> dict[str, float]:
    amounts = {"CPU": asked["num_cpus"], "GPU": asked["num_gpus"], **asked["resources"]}
    return {name: amount for name, amount in amounts.items() if amount}


def _require_listener(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM: Ray would set its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
