"""How Parquet files are written: encodings measured best for soft labels, and atomic, durable placement.

Soft labels are flat arrays with BYTE_STREAM_SPLIT; README's "Soft labels" has what that and other layouts take.
Published files are compressed harder than parts: 2 % smaller at two fifths of the speed, which still is some 400,000
tokens a second. Content-defined chunking cuts pages by content, so that a later version of a corpus shares most of its
bytes; pages of soft labels are cut by traces instead (`distill_data.corpus.cuts`). Every page carries a checksum.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.records import SOFT_LABEL_FIELDS

METADATA_KEY = b"distill_data"  # in a file's metadata: JSON about the file


def write_options(schema: pa.Schema) -> dict[str, Any]:
    """Keyword arguments of `pyarrow.parquet.ParquetWriter` for a schema; the same rows give the same bytes."""
    split = [f"{name}.list.element" for name, _ in SOFT_LABEL_FIELDS if name in schema.names]
    others = [path for path in _leaves(schema) if path not in split]
    return {
        "compression": "zstd",
        "compression_level": 9,
        "data_page_size": 1 << 20,
        "use_dictionary": others,
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT") or None,
        "write_statistics": others,
        "use_content_defined_chunking": True,
        "write_page_checksum": True,
    }


def encode(table: pa.Table) -> pa.Buffer:
    """A table as the bytes of one Parquet file.

    Without content-defined chunking, as a part never has a next version (4/5 of the time), and compressed fast.
    """
    sink = pa.BufferOutputStream()
    options = {**write_options(table.schema), "use_content_defined_chunking": False, "compression_level": 3}
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def place(data: pa.Buffer | bytes, target: Path, *, durable: bool = True) -> None:
    """Put a whole file at `target`: temporary name, fsync, rename, fsync of the folder. Never half a file.

    What is not `durable` can be made again, and may be gone, or empty, after a power failure.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet paths of a schema's leaf columns, such as `support_ids.list.element`."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    return [leaves.column(position).path for position in range(len(leaves))]
