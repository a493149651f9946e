"""From one row of a version back to where it came from: its file, part, prompt source, teacher, sampling, verdict."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.corpus.data_file import row_groups, whole_file
from distill_data.corpus.manifest import FileFacts
from distill_data.corpus.read import Corpus
from distill_data.errors import DistillDataError, InputError
from distill_data.trace_store import TraceStore

_SHOWN = 10  # ids that a message lists
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Lineage:
    """Where a row came from, nearest first."""

    corpus: str
    digest: str
    file: str
    row: int  # in the file, from 0
    sha256: str  # of the file
    trace: dict[str, Any]  # the row
    part: str | None  # in the trace store; None where that is not here
    part_row: int | None
    store: str  # what is known of the store
    source: dict[str, Any]  # what pins the prompts' source
    teacher_id: str
    teacher: dict[str, Any]  # the ingredients of the id
    sampling: dict[str, Any]  # of this source
    judge: dict[str, Any] | None
    dropped: str | None  # why it is not in the corpus
    git_revision: str | None


def lineage(corpus: Corpus, trace: str, root: str | Path) -> Lineage:
    """Walk back from the row whose trace id is `trace`, or begins or ends so where no other one does.

    Raises:
        InputError: no row has such an id, or several have.
        CorpusError: a file of the version is damaged.
    """
    path, row, table = _find(corpus, trace)
    facts = next(file for file in corpus.manifest.files if file.path == path)
    values = table.slice(0, 1).to_pylist()[0]
    manifest = corpus.manifest
    part, part_row, store = _in_store(corpus, values, root)
    sampling, judge = _how(corpus, values["source"])
    return Lineage(
        corpus=corpus.reference,
        digest=manifest.digest,
        file=path,
        row=row,
        sha256=facts.sha256,
        trace=values,
        part=part,
        part_row=part_row,
        store=store,
        source={"label": values["source"], **manifest.prompts.sources.get(values["source"], {})},
        teacher_id=manifest.teacher_id,
        teacher=manifest.teacher,
        sampling=sampling,
        judge=judge,
        dropped=values.get("drop_reason"),
        git_revision=manifest.git_revision,
    )


def _how(corpus: Corpus, source: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """How a source was sampled and judged; of a config that this distill-data no longer takes, what it says for all."""
    written = corpus.manifest.config
    try:
        settings = Config.model_validate(written)
        section = next(one for one in settings.prompts if one.label == source)
    except (ValueError, StopIteration):
        return written["teacher"].get("sampling", {}), written.get("judge")
    judge = settings.judge_of(section)
    return settings.sampling_of(section).model_dump(mode="json"), None if judge is None else judge.model_dump(
        mode="json"
    )


def _find(corpus: Corpus, trace: str) -> tuple[str, int, pa.Table]:
    """File, row and values of the one row with this id, or the only one whose id begins or ends so.

    Of every file only the ids are read, some at a time, and then the row group of the row.
    """
    found = [
        (facts, row, name)
        for facts in corpus.manifest.files
        if not facts.path.startswith("soft_labels/")
        for row, name in _alike(corpus, facts, trace)
    ]
    exact = [one for one in found if one[2] == trace]
    if len(exact or found) != 1:
        raise InputError(_not_one(corpus, trace, [name for *_, name in found]))
    facts, row, _ = (exact or found)[0]
    return facts.path, row, _row(corpus, facts, row)


def _alike(corpus: Corpus, facts: FileFacts, trace: str) -> Iterator[tuple[int, str]]:
    """(row, id) of a file's rows whose id begins or ends so."""
    with whole_file(corpus.path / facts.path, facts) as reader:
        start = 0
        for batch in reader.iter_batches(_BATCH_ROWS, columns=["trace_id"]):
            ids = batch.column("trace_id")
            matches = pc.fill_null(pc.or_(pc.starts_with(ids, trace), pc.ends_with(ids, trace)), False)
            yield from ((start + row, ids[row].as_py()) for row in pc.indices_nonzero(matches).to_pylist())
            start += len(batch)


def _row(corpus: Corpus, facts: FileFacts, row: int) -> pa.Table:
    """One row of a file."""
    for group in row_groups(corpus.path / facts.path, facts):
        if row < group.rows:
            return pa.Table.from_batches(group.batches(None, _BATCH_ROWS)).slice(row, 1)
        row -= group.rows
    raise AssertionError("unreachable")


def _not_one(corpus: Corpus, trace: str, names: list[str]) -> str:
    if not names:
        return f"{corpus.reference} has no trace {trace!r}: `distill-data corpus show` prints one, as does every row"
    listed = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{trace!r} is {len(names)} traces of {corpus.reference}: give more of one of {listed}"


def _in_store(corpus: Corpus, values: dict[str, Any], root: str | Path) -> tuple[str | None, int | None, str]:
    """Part and row of a trace, and what is known of its store."""
    if values["trace_id"] is None:
        return None, None, "the prompt was dropped before the teacher saw it"
    store = TraceStore(root, corpus.manifest.teacher_id)
    try:
        index = store.index()
    except DistillDataError as error:
        return None, None, str(error)
    here = pc.and_(
        pc.equal(index["prompt_id"], values["prompt_id"]), pc.equal(index["sample_index"], values["sample_index"])
    )
    rows = index.filter(here).to_pylist()
    if not rows:
        return None, None, f"{store.folder} does not have it: the version was made elsewhere, or the part was deleted"
    stored = store.read(index.filter(here), ["completion"])["completion"][0].as_py()
    said = values["messages"][-1] if values["finish_reason"] != "error" else {"content": stored}
    if stored != said["content"] and not corpus.labels:
        return None, None, f"{store.folder} has other words for it: it was generated again since"
    return rows[0]["part"], rows[0]["row"], str(store.folder / rows[0]["part"])
