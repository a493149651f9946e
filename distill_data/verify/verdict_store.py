"""What verifiers said, kept by trace and verifier: another filter, or another version, never judges again.

`<root>/verdicts/<teacher_id>/<verifier_id>/part-<hash>.parquet`, beside them verifier.json with the ingredients of the
id. A row is a trace (its content digest and what it was judged against) with its score, or why it has none.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_data.errors import TraceStoreError, reason_of
from distill_data.identity import digest
from distill_data.parquet import METADATA_KEY, place
from distill_data.records import SCHEMA_VERSION

VERDICT_SCHEMA = pa.schema([("key", pa.string()), ("score", pa.float64()), ("error", pa.string())])
_ID_LENGTH = 16
_KEY_BYTES = 49  # of a key of `verdict_keys`


def verifier_id(ingredients: Mapping[str, Any]) -> str:
    """Id of a verifier: a hash of everything that changes what it says of a trace."""
    return digest(dict(ingredients))[:_ID_LENGTH]


def judged_as(prompts: pa.Table) -> pa.Array:
    """Hash of what an answer to each prompt is judged against: its messages, reference and metadata."""
    columns = (prompts[name].to_pylist() for name in ("prompt_id", "reference", "metadata"))
    said = map(json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode, zip(*columns, strict=True))
    hashes = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in said)  # `digest` of texts
    return pa.array([found[:_ID_LENGTH] for found in hashes], pa.string())


def verdict_keys(content_digests: pa.ChunkedArray, judged: pa.Array) -> pa.Array:
    """The names of traces under a verifier: what each says, and what it is judged against."""
    return pc.binary_join_element_wise(content_digests.combine_chunks(), judged, "-")


class VerdictStore:
    """The verdicts of one verifier on one teacher's traces; `find` knows those that were there when it was opened."""

    def __init__(self, root: str | Path, teacher_id: str, ingredients: Mapping[str, Any]):
        self._ingredients = dict(ingredients)
        self.folder = Path(root) / "verdicts" / teacher_id / verifier_id(ingredients)
        parts = sorted(self.folder.glob("part-*.parquet")) if self.folder.is_dir() else []
        known = pa.concat_tables([VERDICT_SCHEMA.empty_table(), *map(_read, parts)]).combine_chunks()
        self._known = known.take(np.argsort(_beginnings(known["key"].combine_chunks()), kind="stable"))
        self._beginnings = _beginnings(self._known["key"].combine_chunks())

    def find(self, keys: pa.Array) -> pa.Table:
        """VERDICT_SCHEMA of these keys in their order; score and error are both null where there is no verdict yet."""
        at = np.searchsorted(self._beginnings, _beginnings(keys))
        at = pa.array(at, mask=at == len(self._known))
        is_known = pc.equal(self._known["key"].take(at), keys).combine_chunks()
        return self._known.select(["score", "error"]).take(pc.if_else(is_known, at, None)).add_column(0, "key", keys)

    def commit(self, verdicts: pa.Table) -> None:
        """Keep rows of VERDICT_SCHEMA for good.

        Raises:
            TraceStoreError: the folder cannot be written.
        """
        sink = pa.BufferOutputStream()
        facts = {METADATA_KEY: json.dumps({"schema_version": SCHEMA_VERSION})}
        pq.write_table(verdicts.replace_schema_metadata(facts), sink, compression="zstd", write_page_checksum=True)
        data = sink.getvalue()
        name = f"part-{hashlib.sha256(data).hexdigest()[:32]}.parquet"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (described := self.folder / "verifier.json").exists():
                place(json.dumps(self._ingredients, indent=2, ensure_ascii=False).encode(), described)
            place(data, self.folder / name)
        except OSError as error:
            raise TraceStoreError(
                f"cannot write {self.folder}: {reason_of(error)}: free space or fix the folder, then run the same "
                "command again; every trace is kept"
            ) from error


def _beginnings(keys: pa.Array) -> np.ndarray:
    """Of ASCII keys the first bytes, which tell them apart: bytes [n]."""
    if not len(keys):
        return np.empty(0, f"S{_KEY_BYTES}")
    even = pc.utf8_slice_codeunits(pc.ascii_rpad(keys, _KEY_BYTES), 0, _KEY_BYTES).cast(pa.binary(_KEY_BYTES))
    return np.frombuffer(even.buffers()[1], f"S{_KEY_BYTES}")[even.offset : even.offset + len(even)]


def _read(part: Path) -> pa.Table:
    try:
        with pq.ParquetFile(part, page_checksum_verification=True) as reader:
            facts = json.loads((reader.metadata.metadata or {}).get(METADATA_KEY, b"{}"))  # the first parts had none
            if (version := facts.get("schema_version", SCHEMA_VERSION)) > SCHEMA_VERSION:
                raise TraceStoreError(
                    f"{part} has schema version {version} and this distill-data reads up to {SCHEMA_VERSION}: upgrade "
                    "distill-data"
                )
            return reader.read().select(VERDICT_SCHEMA.names).cast(VERDICT_SCHEMA)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise TraceStoreError(
            f"{part} is damaged ({reason_of(error)}): delete it, and what it held is judged again"
        ) from error
