"""What a comparison needs of a version's rows, spread over pieces by prompt: one piece at a time fits into memory.

A piece of one version has the prompts, and so the traces, that the piece of the same number of another version has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from distill_data.corpus.data_file import whole_file
from distill_data.corpus.manifest import FileFacts
from distill_data.corpus.read import Corpus

_BATCH_ROWS = 4096
_SAID = ["completion_tokens", "mean_logprob", "answer"]
_NAMES = ["trace_id", "prompt_id", "source"]
SPREAD_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _NAMES),
        ("said", pa.binary(16)),  # hash of _SAID
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # why it is not
    ]
)


class SpreadRows:
    """The rows of a version, kept and rejected, in `pieces` files of SPREAD_SCHEMA in a folder."""

    def __init__(self, corpus: Corpus, folder: Path, pieces: int):
        """Read the version once and write the files; about 150 bytes a row.

        Raises:
            CorpusError: a file of the version is missing or damaged.
            OSError: the folder cannot be written.
        """
        self._folder = folder
        folder.mkdir()
        with ExitStack() as files:
            writers = [files.enter_context(pa.OSFile(str(self._file(piece)), "wb")) for piece in range(pieces)]
            streams = [files.enter_context(pa.ipc.new_stream(writer, SPREAD_SCHEMA)) for writer in writers]
            for batch in _batches(corpus):
                numbers = _pieces(batch["prompt_id"].combine_chunks(), pieces)
                for piece in np.unique(numbers):
                    streams[piece].write_table(batch.filter(pa.array(numbers == piece)))

    def piece(self, number: int) -> pa.Table:
        """One piece, in memory."""
        with pa.OSFile(str(self._file(number))) as file, pa.ipc.open_stream(file) as stream:
            return stream.read_all()

    def _file(self, piece: int) -> Path:
        return self._folder / f"{piece}.arrow"


def light_rows(corpus: Corpus) -> int:
    """How many rows `SpreadRows` has."""
    return sum(facts.rows for facts in _files(corpus))


def _files(corpus: Corpus) -> list[FileFacts]:
    return [facts for facts in corpus.manifest.files if not facts.path.startswith("soft_labels/")]


def _batches(corpus: Corpus) -> Iterator[pa.Table]:
    """Rows of SPREAD_SCHEMA, some at a time."""
    for facts in _files(corpus):
        reasons = ["drop_reason"] if facts.path.startswith("rejected/") else []
        with whole_file(corpus.path / facts.path, facts) as reader:
            for batch in reader.iter_batches(_BATCH_ROWS, columns=[*_NAMES, *_SAID, *reasons]):
                yield _spread(pa.Table.from_batches([batch]), not reasons)


def _spread(rows: pa.Table, kept: bool) -> pa.Table:
    said = zip(*(rows[name].to_pylist() for name in _SAID), strict=True)
    columns = {
        **{name: rows[name] for name in _NAMES},
        "said": pa.array([xxhash.xxh3_128_digest(repr(row).encode("utf-8", "surrogatepass")) for row in said]),
        "kept": pa.repeat(pa.scalar(kept), len(rows)),
        "reason": pa.nulls(len(rows), pa.string()) if kept else rows["drop_reason"],
    }
    return pa.table(columns).cast(SPREAD_SCHEMA)


def _pieces(prompt_ids: pa.Array, pieces: int) -> np.ndarray:
    """The piece of every row: int64 [rows]; the same for the same prompt in any version."""
    names = prompt_ids.dictionary_encode()
    hashes = (xxhash.xxh3_64_intdigest(name.encode()) for name in names.dictionary.to_pylist())
    numbers = np.array([number % pieces for number in hashes], np.int64)
    return numbers[names.indices.to_numpy()]
