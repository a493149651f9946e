"""A teacher's session: the lease of its trace store and the pool of its workers.

It may begin before it is known what is missing, so that engines load while Prefect's server starts and prompts are
read. A build that turns out to have nothing to do ends it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_data.config import NOT_OF_A_VERSION, Config
from distill_data.corpus.manifest import read_manifest
from distill_data.corpus.versions import find_version
from distill_data.errors import DistillDataError
from distill_data.lease import Busy, teacher_lease
from distill_data.screening import pinned
from distill_data.teacher_identity import TeacherIdentity, identify_teacher
from distill_data.teachers.messages import TeacherJob
from distill_data.teachers.pool import TeacherPool
from distill_data.trace_store import TraceStore


@dataclass
class _Early:
    """A session that nobody has taken yet."""

    teacher_id: str
    pool: TeacherPool
    closing: ExitStack


_early: _Early | None = None
_open_pools: list[TeacherPool] = []


def close_pools() -> None:
    """Let all workers of this process commit what they finished, and end them; for a process that is told to leave."""
    for pool in list(_open_pools):
        pool.close()


@contextmanager
def early_session(settings: Config, verbose: bool) -> Iterator[None]:
    """Begin the session of a build that probably has something to generate; ended here if nobody takes it."""
    global _early
    if _early is not None or _looks_up_to_date(settings):
        yield
        return
    with ExitStack() as closing:
        try:
            identity = identify_teacher(settings.teacher)
            pool = closing.enter_context(_session(settings, identity, verbose=verbose))
            pool.start()
            _early = _Early(identity.teacher_id, pool, closing)
        except (DistillDataError, Busy):
            closing.close()  # the build meets the same, in its own order, and says so
        try:
            yield
        finally:
            _early = None


@contextmanager
def teacher_session(
    settings: Config, identity: TeacherIdentity, say: Callable[[str], object], verbose: bool
) -> Iterator[TeacherPool]:
    """The session of a build: the one that was begun early, or a new one.

    Raises:
        Busy: another build of this teacher is at work, and `storage.when_busy` is `leave`.
        TraceStoreError: the trace store cannot be written.
    """
    global _early
    if _early is not None and _early.teacher_id == identity.teacher_id:
        early, _early = _early, None
        with early.closing.pop_all():
            yield early.pool
        return
    with _session(settings, identity, say, wait=settings.storage.when_busy == "wait", verbose=verbose) as pool:
        yield pool


def end_early_session(unless: str) -> None:
    """End a session that nobody took, so that another teacher has the devices; not where it is that teacher's own."""
    global _early
    if _early is not None and _early.teacher_id != unless:
        early, _early = _early, None
        early.closing.close()


@contextmanager
def _session(
    settings: Config,
    identity: TeacherIdentity,
    say: Callable[[str], object] = lambda _: None,
    *,
    wait: bool = False,
    verbose: bool,
) -> Iterator[TeacherPool]:
    store = TraceStore(settings.root, identity.teacher_id)
    with teacher_lease(store.folder, wait=wait, say=say) as lease:
        job = TeacherJob(settings.teacher, identity.source)
        pool = TeacherPool(job, Path(settings.root), lease=lease, verbose=verbose)
        _open_pools.append(pool)
        try:
            yield pool
        finally:
            pool.close()
            _open_pools.remove(pool)


def _looks_up_to_date(settings: Config) -> bool:
    """Whether the corpus's latest version was built from this very config; its prompts may still have changed."""
    try:
        latest = read_manifest(find_version(settings.root, settings.name))
        return _of_its_rows(Config.model_validate(latest.config)) == _of_its_rows(pinned(settings))
    except (DistillDataError, ValueError):  # of a config that this distill-data no longer takes
        return False


def _of_its_rows(settings: Config) -> dict[str, Any]:
    """What a config says of a version's rows: nothing of how they are made, kept, sent or learnt from."""
    around = dict.fromkeys([*NOT_OF_A_VERSION, "student", "rounds", "publish", "compare", "storage"], True)
    return settings.model_dump(mode="json", exclude={**around, "teacher": {"engine": True}})
