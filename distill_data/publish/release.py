"""A version as the files that are published: data as they are, a card, and a manifest without this machine's paths."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_data.corpus.card import CARD_NAME, render_card
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.manifest import MANIFEST_NAME, FileFacts, Manifest, manifest_text, parse_manifest
from distill_data.corpus.read import FAMILIES, Corpus
from distill_data.errors import CorpusError
from distill_data.publish.publishable import RepoType
from distill_data.publish_config import Publish

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
    """Everything of one version that is published; see `publishable.Publishable`."""

    corpus: Corpus
    """The version as it is here."""
    manifest: Manifest
    """The published one."""
    data: tuple[ReleaseFile, ...]
    """Parquet files, in the manifest's order."""
    card: ReleaseFile
    """README.md."""
    marker: ReleaseFile
    """manifest.json."""
    repo_type: RepoType = "dataset"

    @property
    def files(self) -> tuple[ReleaseFile, ...]:
        """All files; the manifest is the last."""
        return (*self.data, self.card, self.marker)

    @property
    def tag(self) -> str:
        """`vN`."""
        return f"v{self.manifest.version}"

    @property
    def reference(self) -> str:
        """`NAME@vN`."""
        return f"{self.manifest.name}@{self.tag}"

    @property
    def digest(self) -> str:
        """The version's."""
        return self.manifest.digest

    @property
    def title(self) -> str:
        """Of the commit."""
        return f"{self.reference}: {self.manifest.counts['kept']:,} rows"

    def require_whole(self) -> None:
        """Verify the version.

        Raises:
            CorpusError: it is damaged.
        """
        if problems := verify_corpus(self.corpus):
            more = f" and {len(problems) - 1:,} more" if len(problems) > 1 else ""
            raise CorpusError(
                f"{self.reference} is not whole and is not published: {problems[0]}{more}: see `distill-data corpus "
                "verify`, then restore it or build again"
            )

    def owns(self, path: str) -> bool:
        """Whether a path at a destination is one of a data file, of this version or another."""
        return path.split("/")[0] in FAMILIES

    def what_else(self, marker: str | None) -> str | None:
        """What a place holds instead of this version, by its manifest.json; None where it is this one."""
        if marker is None:
            return "no version"
        there = parse_manifest(marker, MANIFEST_NAME)
        if (there.name, there.digest) == (self.manifest.name, self.digest):
            return None
        return f"another {there.name}@v{there.version} (digest {there.digest[:12]}, this one has {self.digest[:12]})"

    def why_not_next(self, marker: str) -> str | None:
        """Why this version cannot take the place of what has this manifest.json; None where it can."""
        theirs, ours = parse_manifest(marker, MANIFEST_NAME), self.manifest
        if theirs.name != ours.name:
            return f"holds the corpus {theirs.name!r}: choose another repository"
        if theirs.version == ours.version and theirs.digest != ours.digest:
            return (
                f"holds another {self.reference} (digest {theirs.digest[:12]}, this one has {ours.digest[:12]}): "
                "choose another repository"
            )
        if theirs.version > ours.version:
            return (
                f"is at v{theirs.version} already, and {self.tag} would take it back: publish versions in their order"
            )
        return None

    def before(self, marker: str) -> tuple[str, tuple[FileFacts, ...]]:
        """The tag of the version that has this manifest.json, and its data files."""
        theirs = parse_manifest(marker, MANIFEST_NAME)
        return f"v{theirs.version}", tuple(theirs.files)


def make_release(corpus: Corpus, to: Publish) -> Release:
    """The files of a version as they are published.

    Args:
        corpus: the version.
        to: where it goes: its card names a hub's repository, and the licence where one is set.
    """
    manifest = public_manifest(corpus.manifest)
    data = [ReleaseFile(file.path, corpus.path / file.path, file.bytes, file.sha256) for file in corpus.manifest.files]
    return Release(
        corpus=corpus,
        manifest=manifest,
        data=tuple(data),
        card=made_file(CARD_NAME, render_card(manifest, to.repo_id, to.license)),
        marker=made_file(MANIFEST_NAME, manifest_text(manifest)),
    )


def public_manifest(manifest: Manifest) -> Manifest:
    """A manifest without this machine's folders: an absolute path keeps its last name. Same digest, same files."""
    return manifest.model_copy(
        update={
            "config": public_json(manifest.config),
            "teacher": public_json(manifest.teacher),
            "tokenizer": public_json(manifest.tokenizer),
            "prompts": manifest.prompts.model_copy(
                update={
                    "sources": public_json(manifest.prompts.sources),
                    "benchmarks": public_json(manifest.prompts.benchmarks),
                }
            ),
        }
    )


def public_json(value: Any, key: str = "") -> Any:
    """A JSON value in which paths of this machine are cut to their last name."""
    if isinstance(value, dict):
        return {name: public_json(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [public_json(inner, key) for inner in value]
    return _last_name(value) if isinstance(value, str) and _is_machine_path(value, key) else value


def _is_machine_path(text: str, key: str) -> bool:
    rest = text.removeprefix("file://")
    if key in _TEXT_KEYS or not rest.startswith(("/", "~")):
        return False
    return key in _PATH_KEYS or (rest.count("/") > 1 and len(rest.split()) == 1)


def _last_name(path: str) -> str:
    return Path(path.removeprefix("file://")).name


def made_file(path: str, text: str) -> ReleaseFile:
    """A file that is made to be published."""
    content = text.encode()
    return ReleaseFile(path, content, len(content), hashlib.sha256(content).hexdigest())
