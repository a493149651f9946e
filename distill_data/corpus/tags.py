"""Tags of a corpus: names such as `stable` that move from version to version.

`<root>/corpora/<name>/tags.json` holds every move that was ever made; what a tag names is what its last move says.
The file is replaced whole, under a lock: nobody reads half of it and no move is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from distill_data.errors import CorpusError, InputError
from distill_data.identity import sealed, unsealed
from distill_data.parquet import place

TAGS_NAME = "tags.json"
STABLE = "stable"  # the tag that promotion moves
FORMAT = 1  # of the file
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_VERSION_LIKE = re.compile(r"v[0-9]*")
_LOCK_SECONDS = 60


class Move(BaseModel):
    """One move of a tag."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int | None  # what it names from now on; None: nothing, it was removed
    how: Literal["set", "rollback", "remove"]
    at: str  # ISO 8601, UTC
    moved_by_hand: bool = False  # a person's move; else a build promoted the version
    latest_known: int | None = None  # of a person's move: the highest version that there was

    @classmethod
    def made(cls, version: int | None, how: Literal["set", "rollback", "remove"]) -> Move:
        """A move that is made now."""
        return cls(version=version, how=how, at=datetime.now(UTC).isoformat(timespec="seconds"))


Moves = tuple[Move, ...]  # of one tag, oldest first
_Next = Callable[[Moves], Move | None]


class _TagFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    tags: dict[str, Moves] = {}


def is_tag(text: str) -> bool:
    """Whether a text can be a tag: it is a name, and does not look like a version."""
    return bool(_TAG.fullmatch(text)) and not _VERSION_LIKE.fullmatch(text)


def check_tag(tag: str) -> str:
    """The tag, where it can be one.

    Raises:
        InputError: it cannot, or looks like a version.
    """
    if not is_tag(tag):
        raise InputError(
            f"{tag!r} is no tag: begin with a letter, go on with letters, digits, '.', '_' and '-', and write no vN"
        )
    return tag


def read_tags(folder: Path) -> dict[str, Moves]:
    """The moves of every tag of the corpus in `folder`, also of those that were removed.

    Raises:
        CorpusError: the file is damaged, or written by a newer distill-data.
    """
    file = folder / TAGS_NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if (written_in := int(content.get("format", FORMAT))) > FORMAT:
            raise CorpusError(
                f"{file} has format {written_in} and this distill-data reads up to {FORMAT}: upgrade distill-data"
            )
        return _TagFile.model_validate(unsealed(content)).tags
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorpusError(
            f"{file} is damaged ({reason}): restore it from a backup, or delete it and tag again"
        ) from None


def named(folder: Path) -> dict[str, int]:
    """The version that each tag names."""
    lasts = {tag: moves[-1].version for tag, moves in read_tags(folder).items() if moves}
    return {tag: version for tag, version in sorted(lasts.items()) if version is not None}


def named_before(moves: Moves) -> list[int]:
    """The versions that a tag named before the one that it names now, nearest last; rolled back ones are forgotten."""
    stack: list[int | None] = []
    for move in moves:
        if move.how == "rollback":
            while stack and stack[-1] != move.version:
                stack.pop()
        elif not stack or stack[-1] != move.version:
            stack.append(move.version)
    return [version for version in stack[:-1] if version is not None]


def move_tag(folder: Path, tag: str, decide: _Next) -> Moves:
    """Add the move that `decide` makes of the moves so far, if it makes one; the moves as they then are.

    Raises:
        CorpusError: the file is damaged or cannot be written.
    """
    lock = FileLock(folder / ".tags.lock", timeout=_LOCK_SECONDS)
    try:
        with lock:
            tags = read_tags(folder)
            moves = tags.get(tag, ())
            if (move := decide(moves)) is not None:
                moves = (*moves, move)
                content = _TagFile(tags={**tags, tag: moves}).model_dump(mode="json")
                place((json.dumps(sealed(content), indent=2) + "\n").encode(), folder / TAGS_NAME)
            return moves
    except Timeout:
        raise CorpusError(
            f"another process has been writing {folder / TAGS_NAME} for {_LOCK_SECONDS} s: wait for it, then try again"
        ) from None
    except OSError as error:
        raise CorpusError(
            f"cannot write {folder / TAGS_NAME}: {error.strerror or error}: fix the folder, then try again"
        ) from error
