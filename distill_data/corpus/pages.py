"""Pages of a Parquet column chunk, from a file's bytes: headers, checksums, decompression.

Format: github.com/apache/parquet-format, parquet.thrift in Thrift's compact protocol. Only what the columns of
`distill_data.corpus.list_column` need: data pages of version 1 under zstd.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

_HEADER_BYTES = 512  # more than a header takes without a string's statistics
_DATA_PAGE = 0
_BYTE_STREAM_SPLIT, _RLE = 9, 3
# Fields of PageHeader and DataPageHeader by their numbers in parquet.thrift.
_TYPE, _UNCOMPRESSED, _COMPRESSED, _CRC, _DATA = 1, 2, 3, 4, 5
_VALUES, _ENCODING, _DEFINITION, _REPETITION = 1, 2, 3, 4


@dataclass(frozen=True)
class Page:
    """A decompressed page: `levels` entries, and its bytes, uint8: levels first, then values."""

    levels: int
    content: np.ndarray


@dataclass(frozen=True)
class ChunkPlace:
    """Where a column chunk's pages lie in a file, and how many level entries they have together."""

    start: int
    size: int
    levels: int


def is_plain_data_page(file: int, place: ChunkPlace) -> bool:
    """Whether a chunk begins with a data page of version 1 that `read_pages` knows."""
    header, _ = page_header(os.pread(file, _HEADER_BYTES, place.start), 0)
    return header.get(_TYPE) == _DATA_PAGE and _encodings(header) == (_BYTE_STREAM_SPLIT, _RLE, _RLE)


def read_pages(file: int, place: ChunkPlace) -> Iterator[Page]:
    """A chunk's pages, one after the other, each checked against its checksum if it has one.

    Args:
        file: descriptor of the file.
        place: of the chunk in it.

    Raises:
        ValueError: pages that are damaged, cut or of another kind.
        IndexError, pyarrow.ArrowException: likewise.
    """
    codec, at, levels = pa.Codec("zstd"), place.start, 0
    while levels < place.levels:
        header, length = page_header(os.pread(file, _HEADER_BYTES, at), 0)
        if header[_TYPE] != _DATA_PAGE or _encodings(header) != (_BYTE_STREAM_SPLIT, _RLE, _RLE):
            raise ValueError(f"the page at byte {at:,} is of an unexpected kind")
        at += length
        if header[_COMPRESSED] < 0 or at + header[_COMPRESSED] > place.start + place.size:
            raise ValueError("a page reaches beyond its column")
        body = os.pread(file, header[_COMPRESSED], at)
        if _CRC in header and zlib.crc32(body) != header[_CRC] & 0xFFFFFFFF:
            raise ValueError(f"the page at byte {at:,} does not have its checksum")
        content = np.frombuffer(codec.decompress(body, header[_UNCOMPRESSED]), np.uint8)
        yield Page(header[_DATA][_VALUES], content)
        at += header[_COMPRESSED]
        levels += header[_DATA][_VALUES]
    if levels != place.levels:
        raise ValueError("a column's pages have more values than it has")


def _encodings(header: dict[int, Any]) -> tuple[Any, ...]:
    data = header.get(_DATA, {})
    return data.get(_ENCODING), data.get(_DEFINITION), data.get(_REPETITION)


def page_header(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """A Thrift struct by field number, and where it ends: numbers, flags and structs; other kinds are only passed."""
    fields: dict[int, Any] = {}
    number = 0
    while (byte := data[at]) != 0:
        at += 1
        kind, step = byte & 15, byte >> 4
        if not step:
            raise ValueError("a page header has an unexpected form")
        number += step
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            value, at = _varint(data, at)
            fields[number] = value >> 1 ^ -(value & 1)
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            fields[number], at = page_header(data, at)
        else:
            raise ValueError("a page header has an unexpected form")
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[at]) >= 128:
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
    return value | byte << shift, at + 1
