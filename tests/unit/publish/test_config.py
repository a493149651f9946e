from __future__ import annotations

import pytest
from pydantic import ValidationError

from distill_data.publish_config import Publish


@pytest.mark.parametrize(
    ("to", "kept"),
    [
        ("hf://org/name", "hf://org/name"),
        ("hf://datasets/org/na.me_1/", "hf://org/na.me_1"),
        ("s3://bucket/folder/", "s3://bucket/folder"),
        ("file:///data/out", "file:///data/out"),
    ],
)
def test_destinations_have_one_form(to: str, kept: str) -> None:
    assert Publish(to=to).to == kept


@pytest.mark.parametrize(
    "to",
    [
        "hf://org",
        "hf://org/a/b",
        "hf://org/a--b",
        "hf://org/.name",
        "hf://org/name.git",
        "name",
        "file://data",
        "s3://",
        "s3://bucket/../other",
        f"hf://{'o' * 60}/{'n' * 60}",
    ],
)
def test_what_is_no_destination_is_refused(to: str) -> None:
    with pytest.raises(ValidationError, match=r"write "):
        Publish(to=to)


@pytest.mark.parametrize(
    "to",
    [
        "hf://me:secret42@org/name",
        "https://x?token=secret42",
        "s3://key:secret42@bucket/x",
        "hf://org/hf_secret42Secret42",
        "s3://bucket/x#secret42",
    ],
)
def test_a_secret_is_refused_and_not_repeated(to: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Publish(to=to)
    assert "secret42" not in caught.value.errors()[0]["msg"]


def test_rights_belong_to_hubs() -> None:
    with pytest.raises(ValidationError, match="private says nothing"):
        Publish(to="file:///x", private=True)
    with pytest.raises(ValidationError, match="no address of a hub"):
        Publish(to="hf://org/name", endpoint="hub")
