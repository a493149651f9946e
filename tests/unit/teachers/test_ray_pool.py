from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from distill_data.errors import ConfigError, TeacherError
from distill_data.lease import Lease
from distill_data.teacher_config import Ray, Teacher
from distill_data.teachers.ray_handle import _how
from distill_data.teachers.ray_pool import RayPlaces, asked_of

LEASE = Lease(Path("/store"), 0, "{}")


def teacher(**settings: Any) -> Teacher:
    return Teacher.model_validate({"model": "org/name", **settings})


@pytest.mark.parametrize(
    ("ray", "settings", "gpus"),
    [
        ({}, {}, 1),
        ({}, {"engine": {"tensor_parallel_size": 4, "options": {"pipeline_parallel_size": 2}}}, 8),
        ({}, {"backend": "replay"}, 0),
        ({"num_gpus": 0.5}, {}, 0.5),
        ({"num_gpus": 0.0}, {"engine": {"tensor_parallel_size": 2}}, 0.0),
    ],
)
def test_a_replica_asks_for_the_gpus_of_its_parallelism(ray: Any, settings: Any, gpus: float) -> None:
    asked = asked_of(Ray(**ray, resources={"h200": 1.0}), teacher(**settings))
    assert asked == {"num_cpus": 1.0, "num_gpus": gpus, "resources": {"h200": 1.0}}


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    places = RayPlaces(Ray(), teacher(), LEASE, verbose=False)
    with pytest.raises(ConfigError, match=r"teacher.engine.ray needs Ray: pip install 'distill-data\[ray\]'"):
        places.start(0, Path("log"))


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ("The actor died because its node has died. Node Id: 12\n\tthe actor's node", "its node left the Ray cluster"),
        ("Task was killed due to the node running low on memory.", "ended by Ray: its node ran out of memory"),
        ("Some other\n\treason", "its Ray actor died: Some other reason"),
    ],
)
def test_rays_words_become_one_line(said: str, how: str) -> None:
    assert _how(RuntimeError(said)) == how


def test_a_cluster_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # bound, and nobody listens
        places = RayPlaces(Ray(address=address), teacher(), LEASE, verbose=False)
        with pytest.raises(TeacherError, match=rf"no Ray cluster at {address} \(Connection refused\): start one with"):
            places.start(0, Path("log"))
