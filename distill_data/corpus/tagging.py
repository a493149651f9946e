"""Moving tags: by a person's hand, and by a build that promotes a version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from distill_data.corpus.tags import STABLE, Move, Moves, check_tag, move_tag, named_before, read_tags
from distill_data.corpus.versions import corpus_folder, find_version, list_versions, parse_reference
from distill_data.errors import CorpusError


@dataclass(frozen=True)
class Tagged:
    """What a tag names and what it named before; None: nothing."""

    corpus: str
    tag: str
    version: int | None
    before: int | None


def tag_version(root: str, reference: str, tag: str) -> Tagged:
    """Let a tag name a version, by hand.

    Raises:
        InputError: the tag or the reference is malformed.
        CorpusError: there is no such version, or the tag cannot be written.
    """
    version = int(find_version(root, reference).name.removeprefix("v"))
    return _by_hand(root, reference, tag, lambda _: Move.made(version, "set"))


def remove_tag(root: str, reference: str, tag: str) -> Tagged:
    """Take a tag away, by hand; its history stays, and `roll_back` brings it back.

    Raises:
        CorpusError: there is no such corpus or tag.
    """

    def removed(moves: Moves) -> Move:
        if not moves or moves[-1].version is None:
            raise CorpusError(f"{reference} has no tag {tag!r}: `distill-data corpus list` shows those that there are")
        return Move.made(None, "remove")

    return _by_hand(root, reference, tag, removed)


def roll_back(root: str, reference: str, tag: str = STABLE) -> Tagged:
    """Let a tag name what it named before; a version that is no longer there is passed over.

    Raises:
        CorpusError: there is no such corpus or tag, or it named nothing else before.
    """
    there = set(list_versions(root, parse_reference(reference)[0]))

    def back(moves: Moves) -> Move:
        if before := [version for version in named_before(moves) if version in there]:
            return Move.made(before[-1], "rollback")
        raise CorpusError(
            f"tag {tag!r} of {reference} named no other version before: set it with "
            f"`distill-data corpus tag {reference}@vN {tag}`"
        )

    return _by_hand(root, reference, tag, back)


def promote_version(root: str, name: str, version: int) -> Moves:
    """Let `stable` name a version, unless a person moved it since that version was made; its moves as they then are.

    Raises:
        CorpusError: the tag cannot be written.
    """

    def promoted(moves: Moves) -> Move | None:
        if is_held(moves, version) or names(moves, version):
            return None
        return Move.made(version, "set")

    return move_tag(corpus_folder(root, name), STABLE, promoted)


def stable_moves(root: str, name: str) -> Moves:
    """The moves of `stable` so far."""
    return read_tags(corpus_folder(root, name)).get(STABLE, ())


def names(moves: Moves, version: int) -> bool:
    """Whether a tag with these moves names the version."""
    return bool(moves) and moves[-1].version == version


def is_held(moves: Moves, version: int) -> bool:
    """Whether a person moved the tag away when this version was there already: no build moves it back."""
    known = moves[-1].latest_known if moves else None
    return known is not None and moves[-1].version != version <= known


def _by_hand(root: str, reference: str, tag: str, decide: Callable[[Moves], Move]) -> Tagged:
    name = parse_reference(reference)[0]
    find_version(root, name)
    latest = list_versions(root, name)[-1]

    def moved(moves: Moves) -> Move:
        return decide(moves).model_copy(update={"moved_by_hand": True, "latest_known": latest})

    moves = move_tag(corpus_folder(root, name), check_tag(tag), moved)
    return Tagged(name, tag, moves[-1].version, moves[-2].version if len(moves) > 1 else None)
