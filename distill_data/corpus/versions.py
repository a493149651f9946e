"""Where versions live, and how `NAME`, `NAME@vN` and `NAME@TAG` find them."""

from __future__ import annotations

import re
from pathlib import Path

from distill_data.config import CORPUS_NAME
from distill_data.corpus.manifest import MANIFEST_NAME, read_manifest
from distill_data.corpus.tags import is_tag, named, read_tags
from distill_data.errors import CorpusError, InputError

_VERSION = re.compile(r"v([1-9][0-9]*)")


def corpus_folder(root: str | Path, name: str) -> Path:
    """Folder of a corpus; its versions are `v1`, `v2`, … inside."""
    return Path(root) / "corpora" / name


def version_folder(root: str | Path, name: str, version: int) -> Path:
    """Folder of one version, whether it exists or not."""
    return corpus_folder(root, name) / f"v{version}"


def list_corpora(root: str | Path) -> list[str]:
    """Names of the corpora under a root that have at least one version, sorted."""
    folder = Path(root) / "corpora"
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in folder.iterdir() if CORPUS_NAME.fullmatch(entry.name))
    return [name for name in names if list_versions(root, name)]


def list_versions(root: str | Path, name: str) -> list[int]:
    """Numbers of a corpus's versions, ascending; a folder without a manifest is no version."""
    numbers = _numbers(corpus_folder(root, name))
    return [number for number in numbers if (version_folder(root, name, number) / MANIFEST_NAME).is_file()]


def next_version(folder: Path) -> int:
    """The first number above every version in a corpus's folder, complete or not, and above all that tags ever knew.

    A version that somebody deleted keeps its number: a tag may still name it, and a hub may have it.

    Raises:
        CorpusError: tags.json is damaged.
    """
    moves = [move for moves in read_tags(folder).values() for move in moves]
    known = [number for move in moves for number in (move.version, move.latest_known) if number is not None]
    return max([*_numbers(folder), *known], default=0) + 1


def parse_reference(reference: str) -> tuple[str, int | str | None]:
    """`NAME`, `NAME@vN` or `NAME@TAG` as (name, number or tag); None is the latest.

    Raises:
        InputError: it is none of them.
    """
    name, separator, version = reference.partition("@")
    number = _VERSION.fullmatch(version)
    if not CORPUS_NAME.fullmatch(name) or (separator and number is None and not is_tag(version)):
        raise InputError(
            f"{reference!r} is no corpus reference: write NAME, NAME@vN or NAME@TAG, such as arithmetic@v1"
        )
    return name, int(number[1]) if number else version or None


def find_version(root: str | Path, reference: str) -> Path:
    """Folder of the version that a reference names.

    Raises:
        InputError: the reference is malformed.
        CorpusError: there is no such corpus, version or tag; the message lists what there is.
    """
    name, wanted = parse_reference(reference)
    versions = list_versions(root, name)
    if not versions:
        there = ", ".join(list_corpora(root)) or "none"
        raise CorpusError(
            f"corpus {name!r} does not exist under {root} (corpora there: {there}): "
            "build it with `distill-data build`, or give another --root"
        )
    tags = named(corpus_folder(root, name)) if isinstance(wanted, str) else {}
    number = versions[-1] if wanted is None else tags.get(wanted) if isinstance(wanted, str) else wanted
    if number not in versions:
        there = ", ".join(f"{name}@{one}" for one in (*tags, *(f"v{version}" for version in versions)))
        raise CorpusError(f"{reference} does not exist under {root}: use one of {there}")
    return version_folder(root, name, number)


def list_tags(root: str | Path, name: str) -> dict[str, int]:
    """The version that each tag of a corpus names, by tag."""
    return named(corpus_folder(root, name))


def version_with_digest(root: str | Path, name: str, digest: str) -> int | None:
    """The latest version of a corpus whose digest is this one; None where there is none.

    A version whose manifest cannot be read is passed over: it blocks no build, and opening or verifying it says why.
    """
    for number in reversed(list_versions(root, name)):
        if _digest_of(version_folder(root, name, number)) == digest:
            return number
    return None


def _digest_of(folder: Path) -> str | None:
    """A version's digest; None where its manifest cannot be read."""
    try:
        return read_manifest(folder).digest
    except CorpusError:
        return None


def _numbers(folder: Path) -> list[int]:
    """Numbers of the folders named like versions, ascending."""
    if not folder.is_dir():
        return []
    matches = (_VERSION.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(match[1]) for match in matches if match)
