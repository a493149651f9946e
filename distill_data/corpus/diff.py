"""What changed between two versions of corpora, and why: config, teacher, prompts, rows in and out, statistics."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_data.corpus.data_file import whole_file
from distill_data.corpus.read import Corpus

_COLUMNS = ["trace_id", "prompt_id", "source", "completion_tokens", "mean_logprob", "answer"]
_SAID = ["completion_tokens", "mean_logprob", "answer"]
Change = list[Any]
"""[before, after]; None where it is not there."""


@dataclass(frozen=True)
class PromptChange:
    """Prompts of one source, dropped ones included."""

    added: int
    removed: int
    kept: int


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


def diff_versions(before: Corpus, after: Corpus) -> VersionDiff:
    """Compare two versions; rows are told from each other by trace id.

    Raises:
        CorpusError: a file of either is missing or damaged.
    """
    rows = row_changes(before, after)
    old, new = before.manifest, after.manifest
    return VersionDiff(
        before=before.reference,
        after=after.reference,
        same=old.digest == new.digest,
        config=changes(_flat(old.config), _flat(new.config)),
        teacher=changes(_flat(old.teacher), _flat(new.teacher)),
        packages=changes(old.packages, new.packages),
        prompts=_prompt_changes(_prompts(before), _prompts(after)),
        stayed=_count(rows, "stayed"),
        said_otherwise=_count(rows, "said_otherwise"),
        left=_reasons(rows, "left"),
        came=_reasons(rows, "came"),
        statistics=changes(old.statistics, new.statistics, all_of_them=True),
    )


def row_changes(before: Corpus, after: Corpus) -> pa.Table:
    """Every trace that either version keeps: trace_id, prompt_id, source, change and reason.

    `change` is `stayed`, `said_otherwise` (same trace id, other words), `left` or `came`. `reason` is the drop reason
    on the side that lacks the row (`left: truncated`, `came: was truncated`), or what else kept it away there.
    """
    old, new = _rows(before), _rows(after)
    joined = old.join(new, keys="trace_id", join_type="full outer", left_suffix="_before", right_suffix="_after")
    kept = {side: pc.fill_null(joined[f"kept_{side}"], False) for side in ("before", "after")}
    joined = joined.filter(pc.or_(kept["before"], kept["after"])).sort_by("trace_id")
    kept_before, kept_after = (pc.fill_null(joined[f"kept_{side}"], False) for side in ("before", "after"))
    prompt_id = pc.coalesce(joined["prompt_id_after"], joined["prompt_id_before"])
    left, came = pc.and_not(kept_before, kept_after), pc.and_not(kept_after, kept_before)
    otherwise = pc.invert(_alike(joined))
    other_teacher = before.manifest.teacher_id != after.manifest.teacher_id
    gone = _missing(prompt_id, joined["reason_after"], _prompts(after), other_teacher, ("prompt", "sample"))
    new_here = _missing(
        prompt_id, joined["reason_before"], _prompts(before), other_teacher, ("new prompt", "new sample")
    )
    change = pc.if_else(left, "left", pc.if_else(came, "came", pc.if_else(otherwise, "said_otherwise", "stayed")))
    reason = pc.if_else(left, gone, pc.if_else(came, new_here, pa.scalar(None, pa.string())))
    source = pc.coalesce(joined["source_after"], joined["source_before"])
    return pa.table(
        {"trace_id": joined["trace_id"], "prompt_id": prompt_id, "source": source, "change": change, "reason": reason}
    )


def changes(before: Mapping[str, Any], after: Mapping[str, Any], all_of_them: bool = False) -> dict[str, Change]:
    """Keys whose values differ, or all of them, each with both values."""
    keys = list(dict.fromkeys([*before, *after]))
    pairs = {key: [before.get(key), after.get(key)] for key in keys}
    return {key: pair for key, pair in pairs.items() if all_of_them or pair[0] != pair[1]}


def _rows(corpus: Corpus) -> pa.Table:
    """_COLUMNS of every trace of a version, whether it is kept, and the drop reason of those that are not."""
    pieces = [_with_state(table, True) for split in corpus.splits for table in _columns(corpus, split, _COLUMNS)]
    rejected = [*_columns(corpus, "rejected", [*_COLUMNS, "drop_reason"])]
    pieces += [_with_state(table.filter(pc.is_valid(table["trace_id"])), False) for table in rejected]
    return pa.concat_tables(pieces)


def _with_state(table: pa.Table, kept: bool) -> pa.Table:
    reason = pa.nulls(len(table), pa.string()) if kept else table["drop_reason"]
    state = pa.repeat(pa.scalar(kept), len(table))
    return table.select(_COLUMNS).append_column("kept", state).append_column("reason", reason)


def _columns(corpus: Corpus, split: str, columns: list[str]) -> list[pa.Table]:
    """Some columns of every file of traces of a split, or of the rejected rows."""
    family = "rejected" if split == "rejected" else "traces"
    tables = []
    for facts in corpus.manifest.files:
        if facts.path.startswith(f"{family}/{split}-"):
            with whole_file(corpus.path / facts.path, facts) as reader:
                tables.append(reader.read(columns=columns).select(columns))
    return tables


def _prompts(corpus: Corpus) -> pa.Table:
    """prompt_id, source, and the drop reason of prompts that no teacher saw; one row a prompt."""
    rejected = _columns(corpus, "rejected", ["prompt_id", "source", "trace_id", "drop_reason"])
    asked = [table for split in corpus.splits for table in _columns(corpus, split, ["prompt_id", "source"])]
    asked += [table.filter(pc.is_valid(table["trace_id"])).select(["prompt_id", "source"]) for table in rejected]
    dropped = [table.filter(pc.is_null(table["trace_id"])).drop_columns(["trace_id"]) for table in rejected]
    pieces = [table.append_column("drop_reason", pa.nulls(len(table), pa.string())) for table in asked] + dropped
    every = pa.concat_tables(pieces)
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


def _alike(joined: pa.Table) -> pa.ChunkedArray:
    """Whether both sides say the same."""
    same = None
    for name in _SAID:
        one, other = joined[f"{name}_before"], joined[f"{name}_after"]
        equal = pc.fill_null(pc.equal(one, other), pc.and_(pc.is_null(one), pc.is_null(other)))
        same = equal if same is None else pc.and_(same, equal)
    return same


def _prompt_changes(before: pa.Table, after: pa.Table) -> dict[str, PromptChange]:
    found = {}
    for source in pc.unique(pa.concat_tables([before, after])["source"]).to_pylist():
        old, new = (
            set(side.filter(pc.equal(side["source"], source))["prompt_id"].to_pylist()) for side in (before, after)
        )
        found[source] = PromptChange(len(new - old), len(old - new), len(old & new))
    return found


def _count(rows: pa.Table, change: str) -> int:
    return pc.sum(pc.equal(rows["change"], change)).as_py() or 0


def _reasons(rows: pa.Table, change: str) -> dict[str, int]:
    counts = rows.filter(pc.equal(rows["change"], change))["reason"].value_counts().to_pylist()
    return {
        str(row["values"]): row["counts"] for row in sorted(counts, key=lambda row: (-row["counts"], row["values"]))
    }


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
