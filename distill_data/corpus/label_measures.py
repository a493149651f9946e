"""What filters measure of soft labels, measured once: the labels of a trace are many times its text, and never change.

`<root>/measures/<teacher_id>/<measure>/part-<hash>.parquet` holds a number for every row of the part of that name. It
can be made again from the part: what is missing or cannot be read is.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.errors import TraceStoreError, reason_of
from distill_data.filters.flat_text import Traces
from distill_data.filters.measures import Measure
from distill_data.parquet import place
from distill_data.trace_store import TraceStore

_VERSION = 1  # raised when a measure of labels gives another number
_SCHEMA = pa.schema([("value", pa.float32())])


class LabelMeasures:
    """One measure of one teacher's traces."""

    def __init__(self, root: str | Path, store: TraceStore, measure: Measure):
        self._store, self._measure = store, measure
        self.folder = Path(root) / "measures" / store.teacher_id / f"{measure.name}-{_VERSION}"

    def read(self, locations: pa.Table) -> np.ndarray:
        """The measure of the traces at `locations` (columns `part`, `row`): float32 [rows].

        Raises:
            TraceStoreError: a part is missing or damaged, or the folder cannot be written.
        """
        parts, rows = locations["part"].combine_chunks(), locations["row"].to_numpy()
        which, found = parts.indices.to_numpy(), np.empty(len(rows), np.float32)
        for number in np.unique(which):
            here = which == number
            found[here] = self._of_part(parts.dictionary[int(number)].as_py())[rows[here]]
        return found

    def _of_part(self, name: str) -> np.ndarray:
        with suppress(OSError, ValueError, pa.ArrowException):
            held = pq.read_table(self.folder / name, schema=_SCHEMA, page_checksum_verification=True)
            return held["value"].to_numpy()
        values = self._measure.of(Traces(self._store.columns_of(name, self._measure.reads)))
        self._keep(name, values)
        return values

    def _keep(self, name: str, values: np.ndarray) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table([values], schema=_SCHEMA), sink, use_dictionary=False, write_page_checksum=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            place(sink.getvalue(), self.folder / name, durable=False)
        except OSError as error:
            raise TraceStoreError(
                f"cannot write {self.folder}: {reason_of(error)}: free space or fix the folder, then run the same "
                "command again; every trace is kept"
            ) from error
