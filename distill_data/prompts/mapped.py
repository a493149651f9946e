"""Tables in temporary files that are mapped into memory: the kernel takes back what is not being read.

Such a file has no name. Its room on the disk is free again when the table is gone, or the process.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable

import pyarrow as pa

from distill_data.errors import TraceStoreError, reason_of


def mapped_table(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """What the batches hold, each of which is in memory only until the next one is due.

    Raises:
        TraceStoreError: the folder for temporary files cannot be written.
    """
    try:
        with tempfile.TemporaryFile(prefix="distill-data-") as file:
            with pa.ipc.new_file(file, schema) as writer:
                for batch in batches:
                    if len(batch):
                        writer.write(batch)
            file.flush()
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise TraceStoreError(
            f"cannot write prompts to {tempfile.gettempdir()}: {reason_of(error)}: free space there, or set TMPDIR to "
            "a folder with more"
        ) from error
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()
