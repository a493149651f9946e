"""Open a corpus version: as Arrow tables, as `datasets.Dataset`, or as a reader for training."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from distill_data.corpus.data_file import RowGroup, row_groups, whole_file
from distill_data.corpus.manifest import FileFacts, Manifest, read_manifest
from distill_data.corpus.versions import find_version
from distill_data.errors import CorpusError, reason_of
from distill_data.mapped import mapped_table
from distill_data.records import SOFT_LABELS_SCHEMA, light_schema
from distill_data.teacher_config import SoftLabelSelection

if TYPE_CHECKING:
    from datasets import Dataset

    from distill_data.student.dataset import SoftLabelDataset
    from distill_data.student.streaming import SoftLabelStream
    from distill_data.student_config import Unlabelled

FAMILIES = ("traces", "soft_labels", "rejected")
_HEAD_BATCH_ROWS = 256
_MAPPED_BATCH_ROWS = 1024


def open_corpus(reference: str, root: str | Path | None = None) -> Corpus:
    """Open `NAME` (its latest version), `NAME@vN` or `NAME@TAG`, such as `NAME@stable`.

    Args:
        reference: which version.
        root: folder that holds corpora; when left out, `DISTILL_DATA_ROOT`, else `./data`.

    Raises:
        InputError: the reference is malformed.
        CorpusError: there is no such version or tag, or its manifest cannot be read.
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

    @property
    def draws(self) -> int | None:
        """How many draws its soft labels come from; None where they are a cut support."""
        kept = SoftLabelSelection.model_validate(self.manifest.config["teacher"]["soft_labels"])
        return kept.draws if kept.kind == "sampled" else None

    @property
    def labels(self) -> list[str]:
        """What its teacher chose among, in the order of every row; empty where it did not classify."""
        return [] if self.manifest.labels is None else list(self.manifest.labels.token_ids)

    def schema(self, family: str) -> pa.Schema:
        """Columns of a file family."""
        return SOFT_LABELS_SCHEMA if family == "soft_labels" else light_schema(family, labelled=bool(self.labels))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """`train`, and `validation` where prompts are held out."""
        return tuple(split for split in ("train", "validation") if self.files("traces", split))

    def files(self, family: str, split: str) -> list[Path]:
        """Data files of a family and split, in row order."""
        return [self.path / file.path for file in self._facts(family, split)]

    def table(self, family: str, split: str = "train") -> pa.Table:
        """All rows of a family in memory; `rejected` has no splits, so `split` says nothing there.

        Raises:
            CorpusError: no such family or split, or a file is missing or does not have the manifest's sha256.
        """
        return pa.concat_tables(_read(self.path / file.path, file) for file in self._checked_files(family, split))

    def head(self, family: str, split: str, rows: int) -> pa.Table:
        """The first rows of a family, at most `rows`; no more than these and a batch's rest is in memory.

        Raises:
            CorpusError: as for `table`.
        """
        pieces: list[pa.Table] = []
        for file in self._checked_files(family, split):
            pieces.append(_read_head(self.path / file.path, file, rows - sum(map(len, pieces))))
            if sum(map(len, pieces)) >= rows:
                break
        return pa.concat_tables(pieces)

    def batches(self, family: str, split: str, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows of a family in their order, at most `rows` at a time; a file is checked before its first is given.

        Raises:
            CorpusError: as for `table`.
        """
        for file in self._checked_files(family, split):
            for group in row_groups(self.path / file.path, file):
                yield from group.batches(None, rows)

    def mapped(
        self,
        family: str,
        split: str,
        folder: Path | None = None,
        change: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda batch: batch,
    ) -> pa.Table:
        """All rows of a family for tables larger than memory: in a file without a name that is mapped into memory.

        Args:
            family: which.
            split: which.
            folder: on whose disk, uncompressed; when left out, that of temporary files (`TMPDIR`).
            change: what is to become of every batch; its schema stays.

        Raises:
            CorpusError: as for `table`, or the folder cannot be written.
        """
        self._checked_files(family, split)  # before anything is written
        schema = self.schema(family)  # older versions do not say that nothing is null
        batches = (change(batch.cast(schema)) for batch in self.batches(family, split, _MAPPED_BATCH_ROWS))
        try:
            return mapped_table(schema, batches, folder)
        except OSError as error:
            where = folder or tempfile.gettempdir()
            raise CorpusError(
                f"cannot lay out {family} of {self.reference} in {where}: {reason_of(error)}: free space there, or "
                "name a folder with more (TMPDIR)"
            ) from error

    def row_groups(self, family: str, split: str) -> list[RowGroup]:
        """A family's row groups in their order, to be read one by one; every file is checked as a whole first.

        Raises:
            CorpusError: as for `table`.
        """
        files = self._checked_files(family, split)
        return [group for file in files for group in row_groups(self.path / file.path, file)]

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

    def reader(
        self,
        split: str = "train",
        max_length: int = 1024,
        folder: Path | None = None,
        unlabelled: Unlabelled = "refuse",
    ) -> SoftLabelDataset:
        """A map-style PyTorch dataset of one split for training; longer traces are left out, never cut.

        Args:
            split: which.
            max_length: prompt and completion tokens of the longest trace to give.
            folder: where the split is laid out to be mapped into memory; see `mapped`.
            unlabelled: student.train.loss.unlabelled.
        """
        from distill_data.student.dataset import SoftLabelDataset

        return SoftLabelDataset(self.mapped("soft_labels", split, folder), max_length, unlabelled)

    def stream(
        self,
        split: str = "train",
        max_length: int = 1024,
        seed: int = 0,
        rank: tuple[int, int] | None = None,
        unlabelled: Unlabelled = "refuse",
    ) -> SoftLabelStream:
        """A PyTorch dataset that streams one split from its files, shuffled, sharded and resumable.

        Args:
            split: which.
            max_length: prompt and completion tokens of the longest trace to give.
            seed: of the order.
            rank: (rank, world size); left out, torch.distributed's where it is initialised. Give (0, 1) to
                transformers' Trainer and accelerate, which divide among ranks themselves what they are given.
            unlabelled: student.train.loss.unlabelled.
        """
        from distill_data.student.streaming import SoftLabelStream

        groups = self.row_groups("soft_labels", split)
        return SoftLabelStream(groups, max_length, seed=seed, rank=rank, unlabelled=unlabelled)

    def _facts(self, family: str, split: str) -> list[FileFacts]:
        return [file for file in self.manifest.files if file.path.startswith(f"{family}/{split}-")]

    def _checked_files(self, family: str, split: str) -> list[FileFacts]:
        """The files that `table` reads; CorpusError where there are none."""
        if family not in FAMILIES:
            raise CorpusError(f"{family!r} is no file family of {self.reference}: use {', '.join(FAMILIES)}")
        files = self._facts(family, "rejected" if family == "rejected" else split)
        if not files:
            raise CorpusError(f"{self.reference} has no split {split!r}: use {' or '.join(self.splits)}")
        return files


def _read(path: Path, facts: FileFacts) -> pa.Table:
    with whole_file(path, facts) as reader:
        return reader.read()


def _read_head(path: Path, facts: FileFacts, rows: int) -> pa.Table:
    """The first rows of one file, at most `rows` (at least 1)."""
    with whole_file(path, facts) as reader:
        batches: list[pa.RecordBatch] = []
        for batch in reader.iter_batches(batch_size=min(rows, _HEAD_BATCH_ROWS)):
            batches.append(batch)
            if sum(map(len, batches)) >= rows:
                break
        return pa.Table.from_batches(batches, reader.schema_arrow).slice(0, rows)
