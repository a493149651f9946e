"""Which kept rows are read with their soft labels: all of a small version, the same sample of a large one every time.

Soft labels are nearly all of a version's bytes. Of at most ROW_GROUPS row groups, those with the smallest hashes, the
first rows are read until TOKENS tokens are together.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash

from distill_data.corpus.data_file import RowGroup, row_groups
from distill_data.corpus.read import Corpus
from distill_data.errors import CorpusError
from distill_data.page.scan import BATCH_ROWS, row_hashes
from distill_data.records import SOFT_LABELS_SCHEMA, TRACES_SCHEMA

ROW_GROUPS = 64
TOKENS = 2_000_000
_PAIR_ROWS = 64


@dataclass(frozen=True)
class SampledRows:
    """The first `rows` rows of a row group of traces and of the soft labels beside it."""

    split: str
    traces: RowGroup
    soft_labels: RowGroup
    rows: int

    def light(self, columns: list[str]) -> pa.Table:
        """These columns of its traces."""
        batches = list(self.traces.batches(columns, BATCH_ROWS))
        return pa.Table.from_batches(batches).slice(0, self.rows)

    def pairs(self) -> Iterator[tuple[int, pa.RecordBatch, pa.RecordBatch]]:
        """(first row, traces, soft labels) of some rows at a time.

        Raises:
            CorpusError: the two files are not row-aligned.
        """
        start = 0
        traces = self.traces.batches(TRACES_SCHEMA.names, _PAIR_ROWS)
        soft_labels = self.soft_labels.batches(SOFT_LABELS_SCHEMA.names, _PAIR_ROWS)
        for light, heavy in zip(traces, soft_labels, strict=True):
            if not light["trace_id"].equals(heavy["trace_id"]):
                raise _misaligned(self.traces.path.name)
            rows = min(len(light), self.rows - start)
            yield start, light.slice(0, rows), heavy.slice(0, rows)
            start += rows
            if start == self.rows:
                return


def sampled_rows(corpus: Corpus, traces: dict[str, list[RowGroup]], tokens: int = TOKENS) -> list[SampledRows]:
    """The rows to read, at most about `tokens` completion tokens (a row at least per row group).

    Args:
        corpus: the version.
        traces: its row groups of traces by split.
        tokens: how many at most.

    Raises:
        CorpusError: a file is missing, does not have the manifest's sha256, or is not aligned with the one beside it.
    """
    every = [(split, group) for split, groups in traces.items() for group in groups]
    chosen = sorted(every, key=lambda entry: _hash(corpus, entry[1]))[:ROW_GROUPS]
    beside: dict[str, dict[int, RowGroup]] = {}
    found = []
    for split, group in chosen:
        name = group.path.name
        if name not in beside:
            beside[name] = _soft_labels(corpus, name)
        labels = beside[name].get(group.number)
        if labels is None or labels.rows != group.rows:
            raise _misaligned(name)
        found.append(SampledRows(split, group, labels, _rows_within(group, tokens // len(chosen))))
    return found


def choose_rows(sample: list[SampledRows], wanted: int) -> dict[tuple[int, int], int]:
    """Rows to show as {(place in the sample, row): rank}: sources in turn, smallest hash of the trace id first."""
    by_source: dict[str, list[tuple[int, int, int]]] = {}
    for place, rows in enumerate(sample):
        table = rows.light(["trace_id", "source"])
        hashes = row_hashes(table["trace_id"])
        sources = table["source"].to_pylist()
        for row in np.argsort(hashes, kind="stable").tolist():
            by_source.setdefault(sources[row] or "", []).append((int(hashes[row]), place, row))
    turns = [
        (turn, digest, place, row)
        for entries in by_source.values()
        for turn, (digest, place, row) in enumerate(sorted(entries)[:wanted])
    ]
    return {(place, row): rank for rank, (_, _, place, row) in enumerate(sorted(turns)[:wanted])}


def _rows_within(group: RowGroup, tokens: int) -> int:
    """How many of a row group's first rows have at most so many completion tokens; at least 1."""
    batches = list(group.batches(["completion_tokens"], BATCH_ROWS))
    ends = np.cumsum(pa.Table.from_batches(batches)["completion_tokens"].to_numpy(), dtype=np.int64)
    return max(1, int(np.searchsorted(ends, tokens, side="right")))


def _misaligned(name: str) -> CorpusError:
    return CorpusError(
        f"soft_labels/{name} is not aligned with traces/{name}: run `distill-data corpus verify`, then rebuild"
    )


def _soft_labels(corpus: Corpus, name: str) -> dict[int, RowGroup]:
    """The row groups of one file of soft labels by number; the file is checked as a whole."""
    facts = next((file for file in corpus.manifest.files if file.path == f"soft_labels/{name}"), None)
    if facts is None:
        raise CorpusError(f"{corpus.reference} has traces/{name} and no soft_labels/{name}: rebuild it")
    return {group.number: group for group in row_groups(corpus.path / facts.path, facts)}


def _hash(corpus: Corpus, group: RowGroup) -> tuple[int, str, int]:
    name = group.path.name
    return xxhash.xxh3_64_intdigest(f"{corpus.manifest.digest}/{name}/{group.number}".encode()), name, group.number
