"""What doctor asks a hub before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill_data.errors import PublishError
from distill_data.publish import check_rights
from distill_data.publish_config import Publish
from tests.hub.conftest import TOKEN
from tests.hub.server import Hub, Repo


@pytest.fixture(autouse=True)
def a_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def to(hub: Hub) -> Publish:
    return Publish(to="hf://org/sums", endpoint=hub.url)


def test_one_who_may_write_is_named_and_nothing_is_written(hub: Hub, to: Publish) -> None:
    assert check_rights(to) == f"somebody may make hf://org/sums at {hub.url}"
    assert not hub.repos
    hub.repos["org/sums"] = Repo(private=True)
    hub.repos["org/sums"].add({})
    assert check_rights(to) == f"somebody may write hf://org/sums at {hub.url}"
    assert {request.split()[0] for request in hub.requests} == {"GET"}


def test_a_student_goes_into_a_repository_of_models(hub: Hub, to: Publish) -> None:
    hub.repos["org/sums"] = Repo(private=True)
    hub.repos["org/sums"].add({})
    assert check_rights(to, "model") == f"somebody may write hf://org/sums at {hub.url}"
    asked = {request.split()[1] for request in hub.requests if "org/sums" in request}
    assert asked and all("/models/org/sums" in path for path in asked)


@pytest.mark.parametrize("is_there", [True, False])
def test_one_who_only_reads_is_refused(hub: Hub, to: Publish, is_there: bool) -> None:
    hub.role = "read"
    if is_there:
        hub.repos["org/sums"] = Repo(private=False)
        hub.repos["org/sums"].add({})
    with pytest.raises(
        PublishError, match=r"refuses this token for hf://org/sums|may not make hf://org/sums, which is"
    ):
        check_rights(to)


def test_a_foreign_name_a_public_repository_and_a_wrong_token_are_refused(
    hub: Hub, to: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PublishError, match="somebody may not make hf://another/sums, which is not there yet"):
        check_rights(to.model_copy(update={"to": "hf://another/sums"}))
    hub.repos["org/sums"] = Repo(private=False)
    hub.repos["org/sums"].add({})
    with pytest.raises(PublishError, match="is public and private: true asks for a private one"):
        check_rights(to.model_copy(update={"private": True}))
    monkeypatch.setenv("HF_TOKEN", "hf_wrongWrongWrong")
    with pytest.raises(PublishError, match="the hub refuses this token for hf://org/sums: give a token that") as caught:
        check_rights(to)
    assert "wrongWrong" not in str(caught.value)


def test_without_a_token_or_a_hub_that_answers_there_is_one_line(
    hub: Hub, to: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail("whoami", 503, times=99)
    with pytest.raises(PublishError, match=r"could not be asked about hf://org/sums \(.*503.*\): check") as caught:
        check_rights(to)
    assert TOKEN not in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        PublishError, match="there is no token for hf://org/sums: give a token that may write as HF_TOKEN"
    ):
        check_rights(to)


def test_of_other_destinations_nothing_is_asked() -> None:
    assert check_rights(Publish(to="s3://bucket/folder")).startswith("s3://bucket/folder is no hub: whether it can")
