"""The config's section `publish`: where versions go, and what may not stand there."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from distill_data.license_config import License
from distill_data.section import Section

HUB = "hf://"
_REPO_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_SECRET = re.compile(r"hf_[A-Za-z0-9]{16,}|AKIA[0-9A-Z]{16}|api_org_[A-Za-z0-9]{16,}")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_FROM_ENVIRONMENT = "take it out; tokens come from the environment (HF_TOKEN) or from `hf auth login`"


class Publish(Section):
    """Where versions are published. Tokens never stand here: they come from the environment or the hub's own login."""

    to: str
    """`hf://OWNER/NAME` is a dataset repository of the Hugging Face hub. Any other URL that fsspec writes to
    (`s3://BUCKET/FOLDER`, `file:///FOLDER`) gets a folder `vN` for every version."""
    private: bool = False
    """Of a hub repository that is made: only its owner sees it. A public one that is there already is refused."""
    endpoint: str | None = None
    """Another hub than the one that `HF_ENDPOINT` or huggingface_hub names."""
    license: License | None = None
    """Licence of the data on its card, as the hub writes it: `apache-2.0`, `cc-by-4.0`, … When left out, that of the
    prompt sources if they all name the same, else `other`. The teacher has a licence of its own."""

    @field_validator("to")
    @classmethod
    def _can_be_published_to(cls, to: str) -> str:
        refuse_secrets(to)
        return normalised_destination(to)

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        refuse_secrets(endpoint)
        if urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).netloc:
            raise ValueError(f"{endpoint!r} is no address of a hub: write https://HOST")
        return endpoint.rstrip("/")

    @model_validator(mode="after")
    def _only_hubs_have_rights(self) -> Publish:
        if self.repo_id is None and (self.private or self.endpoint is not None):
            key = "private" if self.private else "endpoint"
            raise ValueError(f"{key} says nothing about {self.to!r}: leave it out, or publish to hf://OWNER/NAME")
        return self

    @property
    def repo_id(self) -> str | None:
        """`OWNER/NAME` of a hub's repository; None for other URLs."""
        return self.to.removeprefix(HUB) if self.to.startswith(HUB) else None


def refuse_secrets(url: str) -> None:
    """Refuse a URL that holds a token, a password, a query or a fragment; the message does not repeat it.

    Raises:
        ValueError: it does.
    """
    parts = urlsplit(url)
    if _SECRET.search(url) or "@" in parts.netloc:
        raise ValueError(f"the URL holds a token or a password: {_FROM_ENVIRONMENT}")
    if parts.query or parts.fragment:
        raise ValueError("the URL has a query or a fragment, where tokens stand: end it with the folder's name")


def normalised_destination(to: str) -> str:
    """A destination in one form: `hf://OWNER/NAME`, or a URL without a slash at its end.

    Raises:
        ValueError: it is no destination.
    """
    scheme, separator, rest = to.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):
        raise ValueError(f"{to!r} is no URL: write hf://OWNER/NAME, s3://BUCKET/FOLDER or file:///FOLDER")
    rest = rest.rstrip("/")
    if scheme == "hf":
        return HUB + _repo_id(rest.removeprefix("datasets/"), to)
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError(f"{to!r} has no absolute path: write file:///FOLDER, with three slashes")
    if not rest or ".." in rest.split("/"):
        raise ValueError(f"{to!r} names no folder: write for example s3://BUCKET/FOLDER")
    return f"{scheme}://{rest}"


def _repo_id(name: str, to: str) -> str:
    """`OWNER/NAME` as the hub allows it."""
    parts = name.split("/")
    odd = "--" in name or ".." in name or name.endswith(".git") or len(name) > 96
    if len(parts) != 2 or odd or not all(_REPO_PART.fullmatch(part) for part in parts):
        raise ValueError(
            f"{to!r} is no repository: write hf://OWNER/NAME with letters, digits, '-', '_' and '.', "
            "neither '--' nor '..', at most 96 characters"
        )
    return name
