"""Traces as measures read them; a text column as one array of UTF-8 bytes, so that numpy sees all rows at once."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_SPARE = 8  # bytes behind the last row, so that eight can be read from any position


@dataclass(frozen=True)
class FlatText:
    """The rows of a text column, one behind the other, with a newline before each and after the last (N bytes, R rows).

    So a row's ends are those of its first and last line and word. Null rows are empty.
    """

    bytes: np.ndarray  # uint8 [N + 8]: the last 8 are zero
    offsets: np.ndarray  # int64 [R + 1]: where rows start; offsets[1:] - 1 is where they end
    valid: np.ndarray  # bool [R]: not null

    @classmethod
    def of(cls, column: pa.ChunkedArray | pa.Array) -> FlatText:
        """The bytes of a column, copied; slices, chunks and nulls are as good as any."""
        valid = np.asarray(pc.is_valid(column))
        texts = pc.fill_null(column.cast(pa.large_string()), "")
        joined = pc.binary_join_element_wise(
            texts, pa.scalar("", pa.large_string()), pa.scalar("\n", pa.large_string())
        )
        rows = joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
        if not len(rows):
            return cls(np.frombuffer(b"\n" + bytes(_SPARE), np.uint8), np.ones(1, np.int64), valid)
        _, offset_buffer, data = rows.buffers()
        offsets = np.frombuffer(offset_buffer, np.int64)[rows.offset : rows.offset + len(rows) + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        copied = np.zeros(1 + last - first + _SPARE, np.uint8)
        copied[0] = ord("\n")
        copied[1:-_SPARE] = np.frombuffer(data, np.uint8)[first:last]
        return cls(copied, offsets - first + 1, valid)

    @property
    def text(self) -> np.ndarray:
        """The bytes without the spare ones: uint8 [N]."""
        return self.bytes[:-_SPARE]

    def rows_with(self, found: Sequence[bytes]) -> np.ndarray:
        """Which rows contain one of these marks of at most 8 bytes (bool [R]); the newline before counts too."""
        from distill_data.filters.text_loops import rows_with

        firsts = np.isin(np.arange(256), [mark[0] for mark in found])
        return rows_with(self.bytes, self.offsets, marks(found), firsts)


@dataclass(frozen=True)
class Traces:
    """Some rows of traces, as measures read them; what several of them need is made once."""

    table: pa.Table

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        return self.table[column]

    @cached_property
    def completion(self) -> FlatText:
        """The column `completion`."""
        return FlatText.of(self.table["completion"])


def marks(some: Sequence[bytes]) -> np.ndarray:
    """Marks of at most 8 bytes as loops compare them: little-endian, and which bits count (uint64 [n, 2])."""
    return np.array([(int.from_bytes(mark, "little"), 2 ** (8 * len(mark)) - 1) for mark in some], np.uint64)


def reduce_rows(ufunc: np.ufunc, values: np.ndarray, offsets: np.ndarray, empty: float) -> np.ndarray:
    """`ufunc.reduce` of every row's stretch of values, `empty` where that has none; [R], of the values' type."""
    filled = offsets[1:] > offsets[:-1]
    if filled.all() and len(filled):
        return ufunc.reduceat(values, offsets[:-1])
    found = np.full(len(filled), empty, np.result_type(values, np.min_scalar_type(empty)))
    if filled.any():
        found[filled] = ufunc.reduceat(values, offsets[:-1][filled])
    return found


def where_said(valid: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values as float32, NaN where a row is null."""
    return np.where(valid, values, np.nan).astype(np.float32)
