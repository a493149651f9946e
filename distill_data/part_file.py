"""One part as a file: how it is encoded, and how it is read so that no damage passes for what was written.

The name is the hash of all bytes, checked whenever whole rows are read. Where only some columns are, nothing else of
the file is: Parquet's checksums cover their pages. Planning reads the index columns of every part that way, and hashes
of their values in the file's metadata cover what the footer says.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_data.errors import TraceStoreError, reason_of
from distill_data.parquet import METADATA_KEY, encode
from distill_data.records import PART_SCHEMA, SCHEMA_VERSION

INDEX_COLUMNS = [
    "prompt_id", "sample_index", "content_digest", "finish_reason", "error", "prompt_tokens", "completion_tokens",
]  # fmt: skip
_HASH_LENGTH = 32


def encode_part(table: pa.Table) -> tuple[str, pa.Buffer]:
    """Name and bytes of the part that holds these rows of PART_SCHEMA; the same rows give the same bytes."""
    facts = {"schema_version": SCHEMA_VERSION, "sha256": {name: _values_hash(table[name]) for name in INDEX_COLUMNS}}
    data = encode(table.replace_schema_metadata({METADATA_KEY: json.dumps(facts)}))
    return f"part-{_hash(data)}.parquet", data


def is_part(name: str) -> bool:
    """Whether a file of this name is a committed part; what is half-written has another name."""
    return name.startswith("part-") and name.endswith(".parquet")


def read_index(file: Path) -> pa.Table:
    """INDEX_COLUMNS of a part, in file order.

    Raises:
        TraceStoreError: the part cannot be read, is damaged, or was written in another format.
    """
    with _readable(file), pq.ParquetFile(file, page_checksum_verification=True) as reader:
        facts = _check_format(file, reader, INDEX_COLUMNS)
        table = reader.read(columns=INDEX_COLUMNS).select(INDEX_COLUMNS).replace_schema_metadata(None)
        for name, expected in facts.get("sha256", {}).items():  # the first parts had none
            if name in INDEX_COLUMNS and _values_hash(table[name]) != expected:
                raise ValueError(f"{name} does not match its hash in the metadata")
    return table


def read_columns(file: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a part, in file order, without reading the rest of it: a fraction where they hold no soft labels.

    Raises:
        TraceStoreError: as for `read_index`.
    """
    with _readable(file), pq.ParquetFile(file, page_checksum_verification=True) as reader:
        has_checksums = "sha256" in _check_format(file, reader, columns)
        if has_checksums:
            return reader.read(columns=list(columns)).select(columns).replace_schema_metadata(None)
    return open_part(file).read(list(columns)).select(columns).replace_schema_metadata(None)


def open_part(file: Path) -> pq.ParquetFile:
    """A whole part in memory, checked against the hash in its name.

    Raises:
        TraceStoreError: as for `read_index`.
    """
    with _readable(file):
        data = file.read_bytes()
        if _hash(data) != file.name[len("part-") : -len(".parquet")]:
            raise ValueError("its bytes do not match the hash in its name")
        reader = pq.ParquetFile(pa.BufferReader(data))
        _check_format(file, reader, PART_SCHEMA.names)
    return reader


def _hash(data: pa.Buffer | bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_HASH_LENGTH]


def _check_format(file: Path, reader: pq.ParquetFile, columns: Sequence[str]) -> dict[str, Any]:
    """What a part's metadata says; TraceStoreError or ValueError where its columns are not as PART_SCHEMA says."""
    facts = json.loads((reader.metadata.metadata or {}).get(METADATA_KEY, b"{}"))
    if (version := facts.get("schema_version", SCHEMA_VERSION)) > SCHEMA_VERSION:
        raise TraceStoreError(
            f"part {file} has schema version {version} and this distill-data reads up to {SCHEMA_VERSION}: "
            "upgrade distill-data"
        )
    schema = reader.schema_arrow
    there = {name: schema.field(at).type for at, name in enumerate(schema.names)}
    if wrong := [name for name in columns if there.get(name) != PART_SCHEMA.field(name).type]:
        raise ValueError(f"{', '.join(wrong)}: not as in schema version {SCHEMA_VERSION}")
    return facts


def _values_hash(column: pa.ChunkedArray) -> str:
    """Hash of a column's values (text or numbers), however Arrow or Parquet lay them out."""
    values = column.combine_chunks()
    numbers = values
    state = hashlib.sha256(pc.is_valid(values).to_numpy(zero_copy_only=False))
    if pa.types.is_string(values.type):
        numbers = pc.binary_length(values)
        whole = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), pc.fill_null(values, ""))
        state.update(pc.binary_join(whole, "")[0].as_buffer())
    state.update(pc.fill_null(numbers, 0).to_numpy())
    return state.hexdigest()[:_HASH_LENGTH]


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turn what goes wrong while a part is read into one line that names it."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        if getattr(error, "errno", None) not in (None, errno.ENOENT, errno.EISDIR):
            raise TraceStoreError(
                f"part {file} cannot be read ({reason_of(error)}): mount or fix its disk, then run the same command "
                "again"
            ) from error
        raise TraceStoreError(
            f"part {file} is damaged ({reason_of(error)}): restore it from a backup, or delete it and run "
            "`distill-data build` to generate its traces again"
        ) from error
