"""Tables in temporary files that are mapped into memory: the kernel takes back what is not being read.

Such a file has no name. Its room on the disk is free again when the table is gone, or the process.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa


def mapped_table(schema: pa.Schema, batches: Iterable[pa.RecordBatch], folder: Path | None = None) -> pa.Table:
    """What the batches hold, each of which is in memory only until the next one is due.

    Args:
        schema: of every batch.
        batches: what to write; those without rows are left out.
        folder: on whose disk; when left out, that of temporary files (`TMPDIR`).

    Raises:
        OSError: the folder cannot be written.
    """
    with tempfile.TemporaryFile(prefix="distill-data-", dir=folder) as file:
        with pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                if len(batch):
                    writer.write(batch)
        file.flush()
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()
