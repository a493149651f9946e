"""What a format is: how the rows of a corpus become the rows that a tool reads, and what its user must know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from distill_data.corpus.read import Corpus

Rows = pa.Table | list[dict[str, Any]]


@dataclass(frozen=True)
class Conversion:
    """One corpus version in one format, ready to be written.

    `family` is read, `batch_rows` rows at a time; `convert` gives an Arrow table for `parquet` and dicts for `jsonl`,
    row by row the same traces. `usage` is Markdown: what the tool's config needs, with FOLDER for where the files are.
    `lost` names what the corpus says and the files do not.
    """

    family: Literal["traces", "soft_labels"]
    suffix: Literal["parquet", "jsonl"]
    batch_rows: int
    convert: Callable[[pa.RecordBatch], Rows]
    usage: str
    lost: tuple[str, ...]


# Looks at the splits of a corpus and says how they become a tool's files.
Planner = Callable[[Corpus, Sequence[str]], Conversion]
