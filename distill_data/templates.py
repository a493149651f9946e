"""How the templates beside the code become pages and cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def templates(folder: Path, *, escape: bool, **options: Any) -> jinja2.Environment:
    """The Jinja templates of a folder; one that prints what it was not given fails.

    Args:
        folder: of the package.
        escape: everything that is printed is escaped as HTML, unless it is `markupsafe.Markup`.
        options: more of `jinja2.Environment`.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=escape,
        **options,
    )
