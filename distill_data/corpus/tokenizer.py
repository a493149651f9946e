"""The tokenizer that a version's ids belong to, where it can be had."""

from __future__ import annotations

from typing import Any

from distill_data.corpus.read import Corpus
from distill_data.errors import ModelError
from distill_data.models import load_tokenizer, resolve_model, tokenizer_fingerprint


def version_tokenizer(corpus: Corpus, *, download: bool) -> Any:
    """The tokenizer of the teacher that the version names, checked against the version.

    Code that ships with it runs only where the version's config says so.

    Args:
        corpus: the version.
        download: get it from a hub if it is there.

    Raises:
        ModelError: it is not to be had, or is another one by now.
    """
    teacher = corpus.manifest.config["teacher"]
    source = resolve_model(teacher["model"], teacher.get("revision"))
    if source.kind == "hub" and not download:
        raise ModelError(f"the tokenizer of {teacher['model']} is on a hub, and nothing is downloaded here")
    tokenizer = load_tokenizer(source, trust_remote_code=bool(teacher.get("trust_remote_code")))
    if tokenizer_fingerprint(tokenizer) != corpus.manifest.tokenizer["sha256"]:
        raise ModelError(f"the tokenizer of {teacher['model']} is not the one that the version was made with")
    return tokenizer
