"""README's text and code blocks, and a small corpus for the Python in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distill_data.corpus.assemble import assemble
from tests.unit.corpus.conftest import (
    MakeJob,
    make_job,  # noqa: F401 (a fixture)
)

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text(encoding="utf-8")


def blocks(language: str | None = None, text: str = README) -> list[str]:
    """The fenced code blocks of one language (empty text: those without), or all of them."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in fences if language is None or name == language]


@pytest.fixture
def quickstart_corpus(make_job: MakeJob, tmp_path: Path) -> Path:  # noqa: F811
    """A folder whose `data` holds a small corpus named `quickstart`."""
    job = make_job(root=tmp_path / "data", judge={"verifier": "exact"}, keep={"passed_only": True})
    named = job.config.model_copy(update={"name": "quickstart"})
    assemble(type(job)(**{**vars(job), "config": named}), lambda progress: None)
    return tmp_path
