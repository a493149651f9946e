"""Promotion: a version that passes the config's gates gets the tag `stable`."""

from __future__ import annotations

from dataclasses import dataclass

from distill_data.config import Config
from distill_data.corpus.gates import failed_gates
from distill_data.corpus.manifest import Manifest, read_manifest
from distill_data.corpus.read import Corpus
from distill_data.corpus.tagging import is_held, names, promote_version, stable_moves
from distill_data.corpus.tags import STABLE, Moves, named_before
from distill_data.corpus.versions import list_versions, version_folder
from distill_data.errors import CorpusError
from distill_data.screening import contaminated_rows


@dataclass(frozen=True)
class Promotion:
    """Whether a version is promoted. One that failed a gate, or that a person moved the tag away from, is not."""

    promoted: bool
    stable: int | None  # the version that `stable` names
    failed_gates: list[str]  # a line each
    note: str | None  # what else a person should know


def promote(settings: Config, manifest: Manifest, created: bool) -> Promotion:
    """Promote a build's version if it may be. One that is stable already is looked at again, as gates may have been
    tightened since, unless a person's hand made it so; where it fails, the tag stays, and nobody goes on with it.

    Args:
        settings: the config; without `gates` every version passes.
        manifest: of the version.
        created: whether it was made just now; an older one is not lost where the tag cannot be written, and says so.

    Raises:
        CorpusError: tags.json is damaged, or cannot be written for a new version.
    """
    root, name, version = settings.root, manifest.name, manifest.version
    moves = stable_moves(root, name)
    stable = names(moves, version)
    if stable and moves[-1].moved_by_hand:
        return Promotion(True, version, [], None)
    if is_held(moves, version):
        return _held(moves, name, version)
    if failed := _failed(settings, manifest, _named_before(moves, root, manifest)):
        back = f"{STABLE} names it since gates were looser: `distill-data corpus rollback {name}` takes that back"
        return Promotion(False, _current(moves), failed, back if stable else None)
    if stable:
        return Promotion(True, version, [], None)
    try:
        moves = promote_version(root, name, version)
    except CorpusError as error:
        if created:
            raise
        return Promotion(True, _current(moves), [], f"{STABLE} stays: {error}")
    return Promotion(True, version, [], None) if names(moves, version) else _held(moves, name, version)


def _failed(settings: Config, manifest: Manifest, stable: int | None) -> list[str]:
    gates = settings.gates
    if gates is None:
        return []
    previous = None
    if gates.compare and stable is not None:
        previous = read_manifest(version_folder(settings.root, manifest.name, stable))
    failed = failed_gates(gates, manifest, previous)
    if gates.zero_contamination:
        corpus = Corpus(version_folder(settings.root, manifest.name, manifest.version), manifest)
        rows, example = contaminated_rows(corpus, settings.decontaminate)
        if rows:
            failed.append(f"zero_contamination: {rows:,} rows hold text of a benchmark, 0 are allowed: {example}")
    return failed


def _named_before(moves: Moves, root: str, manifest: Manifest) -> int | None:
    """What `stable` named last that is another version than this one, and still there."""
    there = set(list_versions(root, manifest.name)) - {manifest.version}
    named = [version for version in (*named_before(moves), _current(moves)) if version in there]
    return named[-1] if named else None


def _current(moves: Moves) -> int | None:
    return moves[-1].version if moves else None


def _held(moves: Moves, name: str, version: int) -> Promotion:
    current = _current(moves)
    where = "removed" if current is None else f"moved to v{current}"
    return Promotion(
        False,
        current,
        [],
        f"{STABLE} was {where} by hand when v{version} was there: `distill-data corpus tag {name}@v{version} {STABLE}` "
        "promotes it",
    )
