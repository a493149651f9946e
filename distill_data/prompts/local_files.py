"""Rows of one local data file, value for value as they were written.

`datasets.load_dataset` guesses types in JSON and CSV ("2024-01-01" becomes a date, "007" the number 7, "NA"
nothing) and copies the file into its cache; prompts must survive byte for byte, so files are read here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.errors import InputError

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".txt")
TEXT_COLUMN = "text"  # of a .txt file
LONGEST_CSV_FIELD = 2**31 - 1


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a `.parquet`, `.jsonl`, `.json` (array or lines) or `.csv` file (all text), top to bottom.

    A `.txt` file has a row a line that is not blank, with the one column `text`.

    Raises:
        InputError: the file is not of its kind; names the line where there is one.
    """
    read = {".parquet": _parquet_rows, ".jsonl": _json_rows, ".json": _json_rows, ".csv": _csv_rows}
    read[".txt"] = _text_rows
    try:
        yield from read[path.suffix](path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): convert it") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions") from None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise InputError(f"{path} is no readable Parquet file ({error}): write it again") from None


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        array = path.suffix == ".json" and _starts_with_bracket(path)
        numbered = enumerate([file.read()] if array else file, start=1)
        for number, text in numbered:
            if not text.strip():
                continue
            try:
                value = json.loads(text)
            except json.JSONDecodeError as error:
                line = error.lineno if array else number
                raise InputError(f"{path}, line {line} is not JSON ({error.msg}): correct that line") from None
            for row in value if array else [value]:
                if not isinstance(row, dict):
                    raise InputError(f"{path} holds {type(row).__name__} where a row is due: write one object per row")
                yield row


def _text_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if text := line.strip():
                yield {TEXT_COLUMN: text}


def _starts_with_bracket(path: Path) -> bool:
    with path.open(encoding="utf-8-sig") as file:
        return file.read(4096).lstrip().startswith("[")


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(LONGEST_CSV_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        try:
            for values in reader:
                if not values:
                    continue
                if header is None:
                    header = values
                elif len(values) != len(header):
                    raise InputError(
                        f"{path}, line {reader.line_num} has {len(values)} values for {len(header)} columns: "
                        "quote values that hold commas"
                    )
                else:
                    yield dict(zip(header, values, strict=True))
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num} is not CSV ({error}): correct that line") from None
