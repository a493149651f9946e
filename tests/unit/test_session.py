from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.errors import TeacherError
from distill_data.lease import teacher_lease
from distill_data.session import early_session
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts


class WatchedPool(InlinePool):
    """Keeps what was done with every pool."""

    calls: list[str] = []  # noqa: RUF012  (emptied by the fixture)

    def start(self) -> None:
        self.calls.append("start")

    def run(self, *arguments: Any) -> Any:
        self.calls.append("run")
        return super().run(*arguments)

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    WatchedPool.calls = []
    monkeypatch.setattr("distill_data.session.TeacherPool", WatchedPool)
    return WatchedPool.calls


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    return make_config(tmp_path / "root", tiny_model, write_prompts(tmp_path / "p.jsonl", 4))


def test_a_build_takes_the_session_that_began_early(config: Config, calls: list[str]) -> None:
    with early_session(config, verbose=False):
        assert calls == ["start"]
        with early_session(config, verbose=False):  # the flow asks for it too
            generate_missing(plan(config), lambda _: None)
        assert calls == ["start", "run", "close"]
    assert calls == ["start", "run", "close"]


def test_a_session_that_nobody_takes_is_closed(config: Config, calls: list[str]) -> None:
    with early_session(config, verbose=False):
        pass
    assert calls == ["start", "close"]
    with teacher_lease(plan(config).store.folder, wait=False, say=pytest.fail):
        pass


def test_an_error_of_the_build_closes_it_too(config: Config, calls: list[str]) -> None:
    with pytest.raises(ValueError, match="prompts"), early_session(config, verbose=False):
        raise ValueError("prompts cannot be read")
    assert calls == ["start", "close"]


def test_it_does_not_begin_early_where_the_latest_version_has_this_config(config: Config, calls: list[str]) -> None:
    build, _ = generate_missing(plan(config), lambda _: None)
    assemble_version(build, lambda *_: None)
    calls.clear()
    with early_session(config, verbose=False):
        assert calls == []
    around = {
        "gates": {"min_rows": 3},
        "schedule": {"cron": "0 3 * * *"},
        "publish": {"to": "hf://o/n"},
        "storage": {"flush_rows": 7},
        "compare": {"seeds": [3]},
        "teacher": config.teacher.model_dump() | {"engine": {"max_num_seqs": 3}},
    }  # around a version, not in it
    with early_session(Config.model_validate(config.model_dump() | around), verbose=False):
        assert calls == []
    student = {"student": {"model": {"from_config": {"model_type": "llama"}}, "train": {"steps": 3}}}
    with early_session(Config.model_validate(config.model_dump() | student), verbose=False):
        assert calls == []
    other = {"keep": {"per_prompt": 1}}
    with early_session(Config.model_validate(config.model_dump() | other), verbose=False):
        assert calls == ["start"]
    calls.clear()
    more = config.model_copy(update={"keep": config.keep, "name": "other"})
    with early_session(more, verbose=False):
        assert calls == ["start"]


def test_it_does_not_begin_early_beside_another_build(config: Config, calls: list[str]) -> None:
    folder = plan(config).store.folder
    with teacher_lease(folder, wait=False, say=pytest.fail), early_session(config, verbose=False):
        assert calls == []


def test_a_model_that_is_not_there_is_left_to_the_build_to_say(config: Config, calls: list[str]) -> None:
    teacher = config.teacher.model_copy(update={"model": "/no/such/model"})
    with early_session(config.model_copy(update={"teacher": teacher}), verbose=False):
        assert calls == []


def test_workers_that_cannot_be_started_early_leave_the_lease_to_the_build(
    config: Config, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: WatchedPool) -> None:
        raise TeacherError("there is no Ray cluster")

    monkeypatch.setattr(WatchedPool, "start", start)
    leave = config.storage.model_copy(update={"when_busy": "leave"})
    with early_session(config, verbose=False):
        _, report = generate_missing(plan(config.model_copy(update={"storage": leave})), lambda _: None)
    assert report.paused is None and report.traces > 0
    assert calls == ["close", "run", "close"]


def test_a_build_with_another_teacher_does_not_take_it(config: Config, calls: list[str]) -> None:
    teacher = config.teacher.model_copy(update={"system_prompt": "Be brief."})
    with early_session(config, verbose=False):
        generate_missing(plan(config.model_copy(update={"teacher": teacher})), lambda _: None)
        assert calls == ["start", "run", "close"]
    assert calls == ["start", "run", "close", "close"]
