"""A version as the files that are published: data as they are, a card, and a manifest without this machine's paths."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_data.corpus.card import CARD_NAME, render_card
from distill_data.corpus.manifest import MANIFEST_NAME, Manifest, manifest_text
from distill_data.corpus.read import FAMILIES, Corpus

_PATH_KEYS = {"root", "path", "model", "tokenizer", "chat_template", "to"}
_TEXT_KEYS = {"system_prompt"}


@dataclass(frozen=True)
class ReleaseFile:
    """One file to publish."""

    path: str
    """In the repository, or in the version's folder."""
    source: Path | bytes
    """Where its bytes are."""
    bytes: int
    """How many."""
    sha256: str
    """Their hash."""

    def content(self) -> bytes:
        """All bytes; only small files are asked for them."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def git_oid(self) -> str:
        """The name that git has for a file with these bytes."""
        content = self.content()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Release:
    """Everything of one version that is published."""

    manifest: Manifest
    """The published one."""
    data: tuple[ReleaseFile, ...]
    """Parquet files, in the manifest's order."""
    card: ReleaseFile
    """README.md."""
    manifest_file: ReleaseFile
    """manifest.json."""

    @property
    def files(self) -> tuple[ReleaseFile, ...]:
        """All files; the manifest is the last."""
        return (*self.data, self.card, self.manifest_file)

    @property
    def tag(self) -> str:
        """`vN`."""
        return f"v{self.manifest.version}"

    @property
    def reference(self) -> str:
        """`NAME@vN`."""
        return f"{self.manifest.name}@{self.tag}"


def make_release(corpus: Corpus, repo_id: str | None) -> Release:
    """The files of a version as they are published.

    Args:
        corpus: the version, verified.
        repo_id: the hub's repository that its card names; None for other destinations.
    """
    manifest = public_manifest(corpus.manifest)
    data = [ReleaseFile(file.path, corpus.path / file.path, file.bytes, file.sha256) for file in corpus.manifest.files]
    return Release(
        manifest=manifest,
        data=tuple(data),
        card=_made(CARD_NAME, render_card(manifest, repo_id)),
        manifest_file=_made(MANIFEST_NAME, manifest_text(manifest)),
    )


def is_data_path(path: str) -> bool:
    """Whether a path at a destination is one of a data file, of this version or another."""
    return path.split("/")[0] in FAMILIES


def public_manifest(manifest: Manifest) -> Manifest:
    """A manifest without this machine's folders: an absolute path keeps its last name. Same digest, same files."""
    return manifest.model_copy(
        update={
            "config": _public(manifest.config),
            "teacher": _public(manifest.teacher),
            "tokenizer": _public(manifest.tokenizer),
            "prompts": manifest.prompts.model_copy(update={"sources": _public(manifest.prompts.sources)}),
        }
    )


def _public(value: Any, key: str = "") -> Any:
    """A JSON value in which paths of this machine are cut to their last name."""
    if isinstance(value, dict):
        return {name: _public(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner, key) for inner in value]
    return _last_name(value) if isinstance(value, str) and _is_machine_path(value, key) else value


def _is_machine_path(text: str, key: str) -> bool:
    rest = text.removeprefix("file://")
    if key in _TEXT_KEYS or not rest.startswith(("/", "~")):
        return False
    return key in _PATH_KEYS or (rest.count("/") > 1 and len(rest.split()) == 1)


def _last_name(path: str) -> str:
    return Path(path.removeprefix("file://")).name


def _made(path: str, text: str) -> ReleaseFile:
    content = text.encode()
    return ReleaseFile(path, content, len(content), hashlib.sha256(content).hexdigest())
