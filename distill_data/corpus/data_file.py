"""One Parquet file of a version, read only when its bytes are the manifest's; whatever goes wrong names the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.corpus.list_column import ListColumn, place_of
from distill_data.corpus.manifest import FileFacts
from distill_data.errors import CorpusError, reason_of


@contextmanager
def whole_file(path: Path, facts: FileFacts) -> Iterator[pq.ParquetFile]:
    """A reader of a file that has the manifest's size and hash.

    The whole file is hashed whatever is read of it: checksums of pages do not cover what their headers and the file's
    footer say.

    Raises:
        CorpusError: it has not, or it cannot be read.
    """
    with _named(path):
        if (size := path.stat().st_size) != facts.bytes:
            raise ValueError(f"it has {size:,} bytes, the manifest says {facts.bytes:,}")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts.sha256:
                raise ValueError("its bytes are not those that the manifest has the sha256 of")
        with pq.ParquetFile(path, page_checksum_verification=True) as reader:
            yield reader


@dataclass(frozen=True)
class RowGroup:
    """Some rows of a file, read when they are needed."""

    path: Path
    number: int
    rows: int

    def batches(self, columns: Sequence[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
        """These columns of its rows in their order, `rows` at a time; the checksums of their pages are checked.

        Args:
            columns: which; all of the file's when left out (None).
            rows: of every batch but the last.

        Raises:
            CorpusError: the file was damaged or replaced since it was checked.
        """
        left = self.rows
        with _named(self.path), open(self.path, "rb") as file:
            with pq.ParquetFile(file, page_checksum_verification=True) as reader:
                names = reader.schema_arrow.names if columns is None else columns
                for batch in _batches(file.fileno(), reader, self.number, names, rows):
                    left -= len(batch)
                    yield batch
            if left:
                raise ValueError(f"row group {self.number} does not have its {self.rows:,} rows")


def _batches(
    file: int, reader: pq.ParquetFile, group: int, columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """List columns by our own decoder where they are written as it knows them, the others by pyarrow."""
    lists = _list_columns(file, reader, group, columns)
    others = [name for name in columns if name not in lists]
    options = {"columns": others, "row_groups": [group], "use_threads": False}
    if not lists:
        yield from reader.iter_batches(batch_size=rows, **options)
        return
    schema = pa.schema([reader.schema_arrow.field(name) for name in columns], reader.schema_arrow.metadata)
    beside = reader.iter_batches(batch_size=rows, **options) if others else None
    while True:
        arrays = {name: column.take(rows) for name, column in lists.items()}
        if beside is not None:
            batch = next(beside, None)
            arrays |= {name: batch.column(name) if batch else pa.array([]) for name in others}
        if not any(map(len, arrays.values())):
            return
        yield pa.RecordBatch.from_arrays([arrays[name] for name in columns], schema=schema)


def _list_columns(file: int, reader: pq.ParquetFile, group: int, columns: Sequence[str]) -> dict[str, ListColumn]:
    """Those of the columns that `ListColumn` reads."""
    leaves = {reader.schema.column(number).path: number for number in range(len(reader.schema))}
    found = {}
    for name in columns:
        field, leaf = reader.schema_arrow.field(name), leaves.get(f"{name}.list.element")
        if leaf is not None and (place := place_of(file, reader.metadata, group, leaf, field)) is not None:
            found[name] = ListColumn(file, place, field.type)
    return found


def row_groups(path: Path, facts: FileFacts) -> list[RowGroup]:
    """The row groups of a file that are not empty, in their order.

    Raises:
        CorpusError: as for `whole_file`.
    """
    with whole_file(path, facts) as reader:
        rows = [reader.metadata.row_group(number).num_rows for number in range(reader.num_row_groups)]
    return [RowGroup(path, number, count) for number, count in enumerate(rows) if count]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """One line about what goes wrong with a file."""
    try:
        yield
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path} cannot be read ({reason_of(error)}): run `distill-data corpus verify`, then restore it or rebuild"
        ) from None
