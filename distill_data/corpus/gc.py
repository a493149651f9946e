"""Free trace parts that no kept version needs. Versions are never touched, nor is what no version has yet."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.corpus.data_file import whole_file
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.corpus.versions import list_corpora, list_versions
from distill_data.errors import TraceStoreError, reason_of
from distill_data.lease import Busy, traces_unused
from distill_data.part_file import read_index
from distill_data.trace_store import TraceStore

_KEYS = ["prompt_id", "sample_index"]


@dataclass(frozen=True)
class FreePart:
    """A part that can go."""

    teacher_id: str
    name: str
    traces: int
    tokens: int  # of completions
    bytes: int


@dataclass(frozen=True)
class GcPlan:
    """What can go, and what stays: parts, and versions that the parts are kept for."""

    free: list[FreePart]
    kept_parts: int
    kept_for: list[str]
    freed: bool = False

    @property
    def bytes(self) -> int:
        """Of what can go."""
        return sum(part.bytes for part in self.free)


def plan_gc(root: str | Path, keep: Sequence[str] = (), *, unused: bool = False) -> GcPlan:
    """Which parts no kept version needs; deletes nothing.

    A part can go where each of its traces is in a version that is not kept, or was made again and the store prefers the
    other one. A trace that no version has was paid for and may be wanted by the next: it keeps its part, unless
    `unused`. Stores of teachers that no version names are left alone, also those of models that judge.

    Args:
        root: holds corpora and traces.
        keep: references of the versions to keep; all when empty.
        unused: let traces go that no version has.

    Raises:
        InputError, CorpusError: a reference names nothing, or a version cannot be read: what it needs is not known.
        TraceStoreError: a part is damaged.
    """
    versions = [
        open_corpus(f"{name}@v{number}", root) for name in list_corpora(root) for number in list_versions(root, name)
    ]
    kept = [open_corpus(reference, root) for reference in keep] or versions
    wanted = {corpus.reference for corpus in kept}
    free: list[FreePart] = []
    parts = 0
    for teacher_id in sorted({corpus.manifest.teacher_id for corpus in versions}):
        own = [corpus for corpus in versions if corpus.manifest.teacher_id == teacher_id]
        needed = _traces([corpus for corpus in own if corpus.reference in wanted])
        known = needed if unused else _traces(own)
        store = TraceStore(root, teacher_id)
        gone = _free_parts(store, needed, known, unused)
        free += gone
        parts += len(store.parts()) - len(gone)
    return GcPlan(free, parts, sorted(wanted))


def free_parts(plan: GcPlan, root: str | Path, keep: Sequence[str] = (), *, unused: bool = False) -> GcPlan:
    """Delete what a plan names and what may still go: a build may have needed it since. The rest as in `plan_gc`.

    A kill in the middle leaves a store that is whole, with fewer parts.

    Raises:
        TraceStoreError: a build of a teacher is at work, or a part cannot be deleted.
    """
    freed: list[FreePart] = []
    for teacher_id in sorted({part.teacher_id for part in plan.free}):
        folder = TraceStore(root, teacher_id).folder
        try:
            with traces_unused(folder):
                still = {part.name for part in plan_gc(root, keep, unused=unused).free if part.teacher_id == teacher_id}
                for part in plan.free:
                    if part.teacher_id == teacher_id and part.name in still:
                        _delete(folder / part.name)
                        for measures in (Path(root) / "measures" / teacher_id).glob(f"*/{part.name}"):
                            _delete(measures)
                        freed.append(part)
        except Busy as busy:
            raise TraceStoreError(f"{str(busy).partition(': ')[0]}: run gc again when it is done") from None
    stays = plan.kept_parts + len(plan.free) - len(freed)
    return GcPlan(freed, stays, plan.kept_for, freed=True)


def _delete(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise TraceStoreError(f"cannot delete {file}: {reason_of(error)}: let this user write the folder") from error


def _free_parts(store: TraceStore, needed: pa.Array, known: pa.Array, unused: bool) -> list[FreePart]:
    chosen = store.index()
    preferred = pa.table({"key": _key(chosen), "part": chosen["part"].cast(pa.string()), "row": chosen["row"]})
    free = []
    for name in store.parts():
        index = read_index(store.folder / name)
        keys = _key(index)
        here = preferred.filter(pc.equal(preferred["part"], name))
        is_chosen = np.zeros(len(index), bool)
        is_chosen[here["row"].to_numpy()] = True
        wanted = pc.is_in(keys, value_set=needed)
        if not unused:
            wanted = pc.or_(wanted, pc.invert(pc.is_in(keys, value_set=known)))
        if not (is_chosen & wanted.to_numpy(zero_copy_only=False)).any():
            tokens = int(pc.sum(index["completion_tokens"]).as_py() or 0)
            free.append(FreePart(store.teacher_id, name, len(index), tokens, (store.folder / name).stat().st_size))
    return free


def _traces(versions: Sequence[Corpus]) -> pa.Array:
    """Keys of all traces that these versions have, kept or rejected."""
    keys = [pa.array([], pa.string())]
    for corpus in versions:
        for facts in corpus.manifest.files:
            if not facts.path.startswith("soft_labels/"):
                with whole_file(corpus.path / facts.path, facts) as reader:
                    rows = reader.read(columns=_KEYS)
                keys.append(_key(rows.filter(pc.is_valid(rows["sample_index"]))))
    return pa.concat_arrays(keys)


def _key(rows: pa.Table) -> pa.Array:
    """`PROMPT-SAMPLE` of every row."""
    joined = pc.binary_join_element_wise(rows["prompt_id"], pc.cast(rows["sample_index"], pa.string()), "-")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
