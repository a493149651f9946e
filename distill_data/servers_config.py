"""The config's section `teacher.engine.servers`: OpenAI-compatible servers that run the teacher."""

from __future__ import annotations

import os
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from distill_data.errors import ConfigError
from distill_data.section import Section, require_distinct


def _is_a_server(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a server: write it as http://HOST:PORT/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("an address with a password or key in it: name its environment variable in api_key_env")
    return url.rstrip("/")


ServerUrl = Annotated[str, AfterValidator(_is_a_server)]


class Servers(Section):
    """Where the teacher runs already: `vllm serve`, or what else speaks its completions API. Never part of an id."""

    urls: Annotated[list[ServerUrl], Field(min_length=1), AfterValidator(lambda urls: require_distinct(urls, "urls"))]
    """Such as `http://gpu-1:8000/v1`. Requests go to the least loaded one; one that is down is asked again until it is
    back, one that was not up yet joins when it is."""
    served_model: str | None = None
    """The name that the servers give the model; left out: `teacher.model`."""
    api_key_env: str | None = None
    """Environment variable with the servers' API key."""

    def api_key(self) -> str | None:
        """The key.

        Raises:
            ConfigError: the variable is not set.
        """
        if self.api_key_env is None:
            return None
        if not (key := os.environ.get(self.api_key_env)):
            raise ConfigError(
                f"teacher.engine.servers.api_key_env is {self.api_key_env} and the environment has no such variable: "
                "set it"
            )
        return key
