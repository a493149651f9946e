"""Licences as a hub writes them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def _known_form(license: str) -> str:
    if not _LICENSE.fullmatch(license):
        raise ValueError(f"{license!r} is no licence id of the hub: write for example apache-2.0, cc-by-4.0 or other")
    return license


License = Annotated[str, Field(max_length=64), AfterValidator(_known_form)]
