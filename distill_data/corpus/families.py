"""The second pass: stream the decided rows from the store into the three file families."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from distill_data.corpus import cuts
from distill_data.corpus.assembly import Assembly, AssemblyProgress, Progress, rows_of
from distill_data.corpus.manifest import FileFacts
from distill_data.corpus.rows import as_traces, dropped_prompt_rows, schema_of, soft_label_rows, trace_rows
from distill_data.corpus.statistics import LabelTally, tally
from distill_data.corpus.write import file_facts, file_metadata, parquet_writer
from distill_data.parquet import sync_folder
from distill_data.records import SOFT_LABELS_SCHEMA

_HASHED_ROWS = 65_536


def write_families(
    job: Assembly, folder: Path, splits: dict[str, pa.Table], on_progress: Progress
) -> tuple[list[FileFacts], LabelTally]:
    """Write all data files of a version; returns their facts and the tally of the kept soft labels.

    Args:
        job: the assembly.
        folder: the staging folder.
        splits: rows of `decide`'s table for train, validation and rejected; an empty validation has no files.
        on_progress: told after every file.
    """
    done, total = 0, len(job.finished)
    labels = LabelTally()
    for split in ("train", "validation"):
        for number, files, rows in _cut(splits[split], job.config.storage.rows_per_file):
            paths = [folder / family / _file_name(split, number, files) for family in ("traces", "soft_labels")]
            labels += _write_pair(job, paths, rows)
            done += len(rows)
            on_progress(AssemblyProgress("write", done, total))
    _write_rejected(job, folder, splits["rejected"])
    on_progress(AssemblyProgress("write", total, total))
    written = sorted(folder.rglob("*.parquet"))
    for parent in sorted({path.parent for path in written}):
        sync_folder(parent)
    return [file_facts(folder, path) for path in written], labels


def _cut(rows: pa.Table, per_file: int) -> Iterator[tuple[int, int, pa.Table]]:
    """(number, number of files, rows) of every file of a split."""
    files = -(-len(rows) // per_file)
    for number in range(files):
        yield number, files, rows.slice(number * per_file, per_file)


def _file_name(split: str, number: int, files: int) -> str:
    return f"{split}-{number:05d}-of-{files:05d}.parquet"


def _write_pair(job: Assembly, paths: list[Path], rows: pa.Table) -> LabelTally:
    """One file of traces and the file of soft labels beside it, row by row the same traces."""
    labels, metadata = LabelTally(), file_metadata(job)
    with ExitStack() as open_files:
        traces = open_files.enter_context(parquet_writer(paths[0], schema_of(job, "traces"), metadata))
        soft_labels = open_files.enter_context(
            parquet_writer(paths[1], SOFT_LABELS_SCHEMA, metadata, page_per_chunk=True)
        )
        for part, decisions in _read(job, rows):
            light = as_traces(job, trace_rows(job, decisions, part))
            heavy = soft_label_rows(light, part)
            traces.write_table(light)
            soft_labels.write_table(cuts.in_pages(heavy, *_hashes_and_tokens(decisions)))
            labels += tally(heavy)
    return labels


def _write_rejected(job: Assembly, folder: Path, rows: pa.Table) -> None:
    """Dropped prompts, then dropped traces, in one file; it is there even when nothing was dropped."""
    path = folder / "rejected" / _file_name("rejected", 0, 1)
    with parquet_writer(path, schema_of(job, "rejected"), file_metadata(job)) as writer:
        if len(job.prompts.dropped):  # `datasets` cannot load a file whose first row group is empty
            writer.write_table(dropped_prompt_rows(job))
        for part, decisions in _read(job, rows):
            writer.write_table(trace_rows(job, decisions, part))


def _read(job: Assembly, rows: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
    """(rows of the store, their decisions with the column `hash`), a row group each."""
    rows = rows.append_column("hash", _hashes(job, rows))
    for piece in cuts.row_groups(*_hashes_and_tokens(rows)):
        decisions = rows_of(rows, piece)
        yield job.store.read(decisions.select(["part", "row"])), decisions


def _hashes(job: Assembly, rows: pa.Table) -> pa.ChunkedArray:
    """What rows are cut by. Ids of some rows at a time: of all of them they would be most of the memory."""
    ids = job.prompts.table["prompt_id"]
    pieces = [rows.slice(start, _HASHED_ROWS) for start in range(0, len(rows), _HASHED_ROWS)]
    found = [pa.array(cuts.hashes(ids.take(piece["prompt_row"]), piece["sample_index"])) for piece in pieces]
    return pa.chunked_array(found, pa.uint64())


def _hashes_and_tokens(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """What cuts are made by."""
    return rows["hash"].to_numpy(), rows["completion_tokens"].to_numpy()
