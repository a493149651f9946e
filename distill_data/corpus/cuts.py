"""Where a version's files are cut into row groups and pages: behind traces that their own hashes choose.

Content-defined chunking on whole traces, so that a later version has the same cuts around all that did not change.
pyarrow's own, on values, ends a page after eight matches of a rolling hash in a row, of which a long row gives one at
most: where a row went, its pages found back into step only after many. A local minimum (Bjørner, Blass, Gurevich 2010)
depends on its neighbours alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import xxhash

GROUP_TOKENS, GROUP_ROWS = 500_000, 4096  # of a row group at most; 40 MB of soft labels at 12 kept tokens a position
PAGE_REACH = 4000  # tokens: pages are about twice as long
WIDE = ("support_ids", "support_logprobs")  # nine tenths of the bytes
NARROW = 4  # times as many tokens are on a page of the other columns: small pages are slow to read


def hashes(prompt_ids: pa.ChunkedArray, sample_indices: pa.ChunkedArray) -> np.ndarray:
    """A number per trace that no other trace decides: uint64 [n]."""
    names = zip(prompt_ids.to_pylist(), sample_indices.to_pylist(), strict=True)
    return np.fromiter((xxhash.xxh3_64_intdigest(f"{prompt}-{sample}".encode()) for prompt, sample in names), np.uint64)


def row_groups(hashes: np.ndarray, tokens: np.ndarray) -> Iterator[slice]:
    """Cut rows into row groups: each ends behind the smallest hash of its second half, the last one with the rows.

    Args:
        hashes: of every trace, uint64 [n].
        tokens: completion tokens of every trace, int [n].
    """
    filled = np.cumsum(np.maximum(tokens / GROUP_TOKENS, 1 / GROUP_ROWS))
    start = 0
    while start < len(tokens):
        before = filled[start - 1] if start else 0.0
        half, full = np.searchsorted(filled, [before + 0.5, before + 1.0], side="right")
        full = max(int(full), start + 1)  # a larger trace is alone
        half = max(start, min(int(half), full - 1))
        stop = full if full == len(tokens) else half + int(np.argmin(hashes[half:full])) + 1
        yield slice(start, stop)
        start = stop


def pages(hashes: np.ndarray, tokens: np.ndarray, reach: int) -> list[slice]:
    """Cut a row group's rows into pages: one ends behind every hash that is the smallest within `reach` tokens.

    Args:
        hashes: of every trace, uint64 [n].
        tokens: completion tokens of every trace, int [n].
        reach: in either direction.
    """
    ends = np.cumsum(tokens)
    first = np.searchsorted(ends, ends - reach)
    last = np.searchsorted(ends, ends + reach, side="right")
    is_end = [own == hashes[start:stop].min() for own, start, stop in zip(hashes, first, last, strict=True)]
    stops = np.union1d(np.flatnonzero(is_end) + 1, len(tokens)).tolist()
    return [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]


def in_pages(labels: pa.Table, hashes: np.ndarray, tokens: np.ndarray, reach: int = PAGE_REACH) -> pa.Table:
    """A row group of soft labels with a chunk per page in each column, for a `parquet_writer` with `page_per_chunk`."""
    short, long = pages(hashes, tokens, reach), pages(hashes, tokens, NARROW * reach)
    columns = [_chunked(labels[name].combine_chunks(), short if name in WIDE else long) for name in labels.column_names]
    return pa.table(columns, schema=labels.schema)


def _chunked(column: pa.Array, pages: list[slice]) -> pa.ChunkedArray:
    return pa.chunked_array([column.slice(page.start, page.stop - page.start) for page in pages], column.type)
