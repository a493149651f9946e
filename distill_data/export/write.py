"""An export as files: streamed into a hidden folder beside the wanted one, which is renamed when all of it is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.corpus.read import Corpus
from distill_data.errors import CorpusError, InputError, reason_of
from distill_data.export.conversion import Conversion
from distill_data.parquet import sync_folder

FACTS_NAME = "export.json"
README_NAME = "README.md"

_README = """\
---
configs:
  - config_name: default
    data_files:
{files}
---

# {corpus} for {format}

{rows}, exported by {exported_by} from digest `{digest}`.

## Use

{usage}
## What is lost

{lost}
"""


def require_empty(folder: Path) -> None:
    """Refuse a folder with something in it.

    Raises:
        InputError: there is something in the folder, or a file has its name.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists already: give another --out, or remove it")


def write_export(
    corpus: Corpus, conversion: Conversion, splits: Sequence[str], folder: Path, facts: dict[str, Any]
) -> dict[str, int]:
    """Write one file per split, the README and the facts; returns rows by split.

    Args:
        corpus: the version that is exported.
        conversion: how.
        splits: which of its splits.
        folder: where to; empty or not there.
        facts: what `export.json` says, and the README with `format`, `corpus`, `digest` and `exported_by`.

    Raises:
        CorpusError: a file of the corpus is damaged, or the folder cannot be written.
    """
    staging = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.tmp")
    try:
        staging.mkdir(parents=True)
        rows = {split: _write_split(corpus, conversion, split, staging) for split in splits}
        _write(staging / FACTS_NAME, json.dumps({**facts, "rows": rows}, indent=2, ensure_ascii=False) + "\n")
        _write(staging / README_NAME, _readme(conversion, rows, facts))
        sync_folder(staging)
        os.replace(staging, folder)
        sync_folder(staging.parent)
    except OSError as error:
        raise CorpusError(f"cannot write {folder} ({reason_of(error)}): free space or give another --out") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return rows


def _write_split(corpus: Corpus, conversion: Conversion, split: str, folder: Path) -> int:
    """Stream one split into its file; returns its rows."""
    rows = 0
    with _File(folder / f"{split}.{conversion.suffix}") as file:
        for batch in corpus.batches(conversion.family, split, conversion.batch_rows):
            file.write(conversion.convert(batch))
            rows += len(batch)
    return rows


class _File:
    """A file of tables (Parquet, a row group each) or of dicts (JSON lines), durable when it is closed."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._parquet: pq.ParquetWriter | None = None

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        with self._file:
            if self._parquet is not None:
                self._parquet.close()
            self._file.flush()
            os.fsync(self._file.fileno())

    def write(self, rows: pa.Table | list[dict[str, Any]]) -> None:
        """Append these rows."""
        if isinstance(rows, list):
            self._file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
            return
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._file, rows.schema, compression="zstd")
        self._parquet.write_table(rows)


def _readme(conversion: Conversion, rows: dict[str, int], facts: dict[str, Any]) -> str:
    """README.md, whose header tells `datasets.load_dataset` the splits."""
    return _README.format(
        files="\n".join(f"      - {{split: {split}, path: {split}.{conversion.suffix}}}" for split in rows),
        rows=", ".join(f"{count:,} traces in {split}" for split, count in rows.items()),
        usage=conversion.usage,
        lost="\n".join(f"- {what}" for what in conversion.lost),
        **{name: facts[name] for name in ("corpus", "format", "exported_by", "digest")},
    )


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
