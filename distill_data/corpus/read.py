"""Open a corpus version: as Arrow tables, as `datasets.Dataset`, or as a reader for training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.corpus.manifest import Manifest, read_manifest
from distill_data.corpus.versions import find_version
from distill_data.errors import CorpusError

if TYPE_CHECKING:
    from datasets import Dataset

    from distill_data.student.dataset import SoftLabelDataset

FAMILIES = ("traces", "soft_labels", "rejected")
_HEAD_BATCH_ROWS = 256


def open_corpus(reference: str, root: str | Path | None = None) -> Corpus:
    """Open `NAME` (its latest version) or `NAME@vN`.

    Args:
        reference: which version.
        root: folder that holds corpora; when left out, `DISTILL_DATA_ROOT`, else `./data`.

    Raises:
        InputError: the reference is malformed.
        CorpusError: there is no such version, or its manifest cannot be read.
    """
    folder = find_version(root or os.environ.get("DISTILL_DATA_ROOT") or "data", reference)
    return Corpus(folder, read_manifest(folder))


@dataclass(frozen=True)
class Corpus:
    """One immutable version of a corpus."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """Name of the corpus."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """N of `NAME@vN`."""
        return self.manifest.version

    @property
    def reference(self) -> str:
        """`NAME@vN`."""
        return f"{self.name}@v{self.version}"

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """`train`, and `validation` where prompts are held out."""
        return tuple(split for split in ("train", "validation") if self.files("traces", split))

    def files(self, family: str, split: str) -> list[Path]:
        """Data files of a family and split, in row order."""
        prefix = f"{family}/{split}-"
        return [self.path / file.path for file in self.manifest.files if file.path.startswith(prefix)]

    def table(self, family: str, split: str = "train") -> pa.Table:
        """All rows of a family in memory; `rejected` has no splits, so `split` says nothing there.

        Raises:
            CorpusError: no such family or split, or a file is missing or damaged.
        """
        return pa.concat_tables(_read(file) for file in self._checked_files(family, split))

    def head(self, family: str, split: str, rows: int) -> pa.Table:
        """The first rows of a family, at most `rows`; no more than these and a batch's rest is read.

        Raises:
            CorpusError: as for `table`.
        """
        pieces: list[pa.Table] = []
        for file in self._checked_files(family, split):
            pieces.append(_read_head(file, rows - sum(map(len, pieces))))
            if sum(map(len, pieces)) >= rows:
                break
        return pa.concat_tables(pieces)

    def traces(self, split: str = "train") -> Dataset:
        """Conversations, thinking, answers and verdicts: one row per trace."""
        from datasets import Dataset
        from datasets.table import InMemoryTable

        return Dataset(InMemoryTable(self.table("traces", split)))

    def soft_labels(self, split: str = "train") -> Dataset:
        """Token ids and distributions: row i belongs to row i of `traces`."""
        from datasets import Dataset
        from datasets.table import InMemoryTable

        return Dataset(InMemoryTable(self.table("soft_labels", split)))

    def reader(self, split: str = "train", max_length: int = 1024) -> SoftLabelDataset:
        """A PyTorch dataset of one split for training; longer traces are left out, never cut."""
        from distill_data.student.dataset import SoftLabelDataset

        return SoftLabelDataset(self.table("soft_labels", split), max_length=max_length)

    def _checked_files(self, family: str, split: str) -> list[Path]:
        """The files that `table` reads; CorpusError where there are none."""
        if family not in FAMILIES:
            raise CorpusError(f"{family!r} is no file family of {self.reference}: use {', '.join(FAMILIES)}")
        files = self.files(family, "rejected" if family == "rejected" else split)
        if not files:
            raise CorpusError(f"{self.reference} has no split {split!r}: use {' or '.join(self.splits)}")
        return files


def _read(file: Path) -> pa.Table:
    with _readable(file):
        return pq.read_table(file)


def _read_head(file: Path, rows: int) -> pa.Table:
    """The first rows of one file, at most `rows` (at least 1)."""
    with _readable(file), pq.ParquetFile(file) as reader:
        batches: list[pa.RecordBatch] = []
        for batch in reader.iter_batches(batch_size=min(rows, _HEAD_BATCH_ROWS)):
            batches.append(batch)
            if sum(map(len, batches)) >= rows:
                break
        return pa.Table.from_batches(batches, reader.schema_arrow).slice(0, rows)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into one line."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorpusError(
            f"{file} cannot be read ({reason}): run `distill-data corpus verify`, then restore it or rebuild"
        ) from None
