"""One Parquet file of a version, read only when its bytes are the manifest's; whatever goes wrong names the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

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

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """These columns of its rows in their order, `rows` at a time; the checksums of their pages are checked.

        Raises:
            CorpusError: the file was damaged or replaced since it was checked.
        """
        left = self.rows
        with _named(self.path), pq.ParquetFile(self.path, page_checksum_verification=True) as reader:
            options = {"columns": list(columns), "row_groups": [self.number], "use_threads": False}
            for batch in reader.iter_batches(batch_size=rows, **options):
                left -= len(batch)
                yield batch
            if left:
                raise ValueError(f"row group {self.number} does not have its {self.rows:,} rows")


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
