"""What changed between two versions of corpora, and why: config, teacher, prompts, rows in and out, statistics."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_data.corpus.read import Corpus
from distill_data.corpus.spread import SpreadRows, light_rows
from distill_data.errors import CorpusError, reason_of

ROWS_AT_ONCE = 500_000  # of both versions together
Change = list[Any]
"""[before, after]; None where it is not there."""


@dataclass(frozen=True)
class PromptChange:
    """Prompts of one source, dropped ones included."""

    added: int
    removed: int
    kept: int

    def __add__(self, other: PromptChange) -> PromptChange:
        return PromptChange(self.added + other.added, self.removed + other.removed, self.kept + other.kept)


@dataclass(frozen=True)
class VersionDiff:
    """What changed from one version to another.

    `stayed` rows are kept in both and say the same, `said_otherwise` of them were generated anew; `left` and `came`
    count the others by reason.
    """

    before: str
    after: str
    same: bool
    config: dict[str, Change]
    teacher: dict[str, Change]
    packages: dict[str, Change]
    prompts: dict[str, PromptChange]
    stayed: int
    said_otherwise: int
    left: dict[str, int]
    came: dict[str, int]
    statistics: dict[str, Change]


def diff_versions(before: Corpus, after: Corpus, see: Callable[[pa.Table], object] = lambda rows: None) -> VersionDiff:
    """Compare two versions; rows are told from each other by trace id.

    Both are read once, and compared ROWS_AT_ONCE rows at a time: memory does not grow with them.

    Args:
        before: one.
        after: the other.
        see: is given the rows of `row_changes`, a piece at a time.

    Raises:
        CorpusError: a file of either is missing or damaged, or there is no room for temporary files.
    """
    counted: Counter[tuple[str, str | None]] = Counter()
    prompts: dict[str, PromptChange] = {}
    for old, new in _pieces(before, after):
        rows = row_changes(old, new, other_teacher=before.manifest.teacher_id != after.manifest.teacher_id)
        counted.update(zip(rows["change"].to_pylist(), rows["reason"].to_pylist(), strict=True))
        for source, change in _prompt_changes(_prompts(old), _prompts(new)).items():
            prompts[source] = prompts.get(source, PromptChange(0, 0, 0)) + change
        see(rows)
    old, new = before.manifest, after.manifest
    return VersionDiff(
        before=before.reference,
        after=after.reference,
        same=old.digest == new.digest,
        config=changes(_flat(old.config), _flat(new.config)),
        teacher=changes(_flat(old.teacher), _flat(new.teacher)),
        packages=changes(old.packages, new.packages),
        prompts=dict(sorted(prompts.items())),
        stayed=counted["stayed", None],
        said_otherwise=counted["said_otherwise", None],
        left=_reasons(counted, "left"),
        came=_reasons(counted, "came"),
        statistics=changes(old.statistics, new.statistics, all_of_them=True),
    )


def _pieces(before: Corpus, after: Corpus) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows of SPREAD_SCHEMA of both versions, those of the same prompts together."""
    pieces = 1 + (light_rows(before) + light_rows(after)) // ROWS_AT_ONCE
    try:
        with TemporaryDirectory() as folder:
            sides = [
                SpreadRows(corpus, Path(folder, side), pieces)
                for side, corpus in zip("ab", (before, after), strict=True)
            ]
            for piece in range(pieces):
                yield sides[0].piece(piece), sides[1].piece(piece)
    except OSError as error:
        raise CorpusError(
            f"cannot write temporary files for a comparison: {reason_of(error)}: name a folder with more room (TMPDIR)"
        ) from error


def row_changes(old: pa.Table, new: pa.Table, other_teacher: bool) -> pa.Table:
    """Every trace that either version keeps: trace_id, prompt_id, source, change and reason.

    `change` is `stayed`, `said_otherwise` (same trace id, other words), `left` or `came`. `reason` is the drop reason
    on the side that lacks the row (`left: truncated`, `came: was truncated`), or what else kept it away there.

    Args:
        old: rows of SPREAD_SCHEMA of the one version.
        new: the rows of the same prompts in the other.
        other_teacher: whether the versions have different teachers.
    """
    traces = [side.filter(pc.is_valid(side["trace_id"])) for side in (old, new)]
    joined = traces[0].join(
        traces[1], keys="trace_id", join_type="full outer", left_suffix="_before", right_suffix="_after"
    )
    kept = {side: pc.fill_null(joined[f"kept_{side}"], False) for side in ("before", "after")}
    joined = joined.filter(pc.or_(kept["before"], kept["after"])).sort_by("trace_id")
    kept_before, kept_after = (pc.fill_null(joined[f"kept_{side}"], False) for side in ("before", "after"))
    prompt_id = pc.coalesce(joined["prompt_id_after"], joined["prompt_id_before"])
    left, came = pc.and_not(kept_before, kept_after), pc.and_not(kept_after, kept_before)
    otherwise = pc.fill_null(pc.not_equal(joined["said_before"], joined["said_after"]), True)
    gone = _missing(prompt_id, joined["reason_after"], _prompts(new), other_teacher, ("prompt", "sample"))
    new_here = _missing(prompt_id, joined["reason_before"], _prompts(old), other_teacher, ("new prompt", "new sample"))
    change = pc.if_else(left, "left", pc.if_else(came, "came", pc.if_else(otherwise, "said_otherwise", "stayed")))
    reason = pc.if_else(left, gone, pc.if_else(came, new_here, pa.scalar(None, pa.string())))
    source = pc.coalesce(joined["source_after"], joined["source_before"])
    return pa.table(
        {"trace_id": joined["trace_id"], "prompt_id": prompt_id, "source": source, "change": change, "reason": reason}
    )


def changed_rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Those of `row_changes` that did not stay."""
    return rows.filter(pc.not_equal(rows["change"], "stayed")).to_pylist()


def changes(before: Mapping[str, Any], after: Mapping[str, Any], all_of_them: bool = False) -> dict[str, Change]:
    """Keys whose values differ, or all of them, each with both values."""
    keys = list(dict.fromkeys([*before, *after]))
    pairs = {key: [before.get(key), after.get(key)] for key in keys}
    return {key: pair for key, pair in pairs.items() if all_of_them or pair[0] != pair[1]}


def _prompts(rows: pa.Table) -> pa.Table:
    """prompt_id, source, and the drop reason of prompts that no teacher saw; one row a prompt."""
    unseen = pc.if_else(pc.is_null(rows["trace_id"]), rows["reason"], pa.scalar(None, pa.string()))
    every = rows.select(["prompt_id", "source"]).append_column("drop_reason", unseen)
    first = every.group_by(["prompt_id", "source"], use_threads=False).aggregate([("drop_reason", "first")])
    return first.rename_columns(["prompt_id", "source", "drop_reason"])


def _missing(
    prompt_id: pa.ChunkedArray, reason: pa.ChunkedArray, prompts: pa.Table, other_teacher: bool, names: tuple[str, str]
) -> pa.ChunkedArray:
    """Why a side does not keep rows: dropped, their prompt dropped or not there, another teacher, fewer samples."""
    at = pc.index_in(prompt_id, value_set=prompts["prompt_id"].combine_chunks())
    of_prompt = prompts["drop_reason"].combine_chunks().take(at.combine_chunks())
    if names[0] == "prompt":
        no_prompt, no_sample = "its prompt is gone", "its sample is gone"
    else:
        no_prompt, no_sample = names
    there = pc.if_else(pc.is_valid(at), "another teacher" if other_teacher else no_sample, no_prompt)
    return pc.coalesce(reason, pa.chunked_array([of_prompt]), there)


def _prompt_changes(before: pa.Table, after: pa.Table) -> dict[str, PromptChange]:
    found = {}
    for source in pc.unique(pa.concat_tables([before, after])["source"]).to_pylist():
        old, new = (
            set(side.filter(pc.equal(side["source"], source))["prompt_id"].to_pylist()) for side in (before, after)
        )
        found[source] = PromptChange(len(new - old), len(old - new), len(old & new))
    return found


def _reasons(counted: Counter[tuple[str, str | None]], change: str) -> dict[str, int]:
    """Rows of a change by reason, most frequent first."""
    counts = [(str(reason), count) for (what, reason), count in counted.items() if what == change]
    return dict(sorted(counts, key=lambda entry: (-entry[1], entry[0])))


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted keys; lists of sections by their place."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{key}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value):
                flat |= _flat(item, f"{above}{key}[{place}].")
        else:
            flat[f"{above}{key}"] = value
    return flat
