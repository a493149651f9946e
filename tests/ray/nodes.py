"""Real Ray clusters of several nodes, on this machine."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytest

STARTS = 4  # of a node on a busy machine
MEMORY = 80 << 20  # bytes of a node's object store, about the least that Ray takes


class Nodes:
    """The cluster's nodes, each a raylet of its own on this machine; only they have `environment`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        from ray.cluster_utils import Cluster

        self._environment = environment
        self._cluster: Any = Cluster()
        self.add(pair=1)
        self.address: str = self._cluster.address

    def add(self, **resources: float) -> Any:
        """Another node, with one CPU. A raylet gives up after 15 seconds without its agents: then it is tried again."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._environment.items():
                patch.setenv(name, value)
            for attempt in range(STARTS):
                try:
                    return self._cluster.add_node(**_small(), num_cpus=1, resources=resources)
                except Exception:
                    if attempt == STARTS - 1:
                        raise

    def remove(self, node: Any) -> None:
        """End a node with everything on it, as a machine does that loses its power."""
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def _small() -> dict[str, Any]:
    """Arguments of a node; with ports that are given it has fewer of its agents' to wait for."""
    names = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_export_port")
    with ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in names]
        for one in sockets:
            one.bind(("", 0))
        ports = {name: one.getsockname()[1] for name, one in zip(names, sockets, strict=True)}
    return {"object_store_memory": MEMORY, "include_dashboard": False, **ports}
