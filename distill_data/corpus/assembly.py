"""What a version is assembled from, how far that is, and in what slices its traces are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from distill_data.config import Config
from distill_data.corpus.labelling import Labelling
from distill_data.filters.decontamination import Benchmarks
from distill_data.prompts import PromptSet
from distill_data.reasoning import Split, Splitter
from distill_data.trace_store import TraceStore

_SLICE_ROWS = 4096
_SLICE_TOKENS = 500_000  # 40 MB of soft labels at 12 kept tokens a position; a few copies are alive at once
_TEXT_TOKENS = 2_000_000  # some 10 MB of text


@dataclass(frozen=True)
class AssemblyProgress:
    """How far a version is: every trace is judged once, then written once; `pass_rate` is of those judged so far."""

    stage: Literal["judge", "write"]
    done: int
    total: int
    pass_rate: float | None = None


Progress = Callable[[AssemblyProgress], None]


@dataclass(frozen=True)
class Assembly:
    """What a version is assembled from.

    `write_report` takes the version's folder and its manifest, before the version is there for others to see.
    `finished` has the columns prompt_row, sample_index, part, row, content_digest, error and
    completion_tokens, in planned order; `tokenizer` has at least sha256 and vocab_size; `split` tells thinking
    from answer; `benchmarks` are there where traces are compared with them, `labelling` where the teacher classified.
    """

    config: Config
    prompts: PromptSet
    store: TraceStore
    finished: pa.Table
    teacher_id: str
    teacher: dict[str, Any]
    tokenizer: dict[str, Any]
    digest: str
    split: Splitter
    benchmarks: Benchmarks | None = None
    labelling: Labelling | None = None
    write_report: Callable[[Path, Any], object] | None = None


def slices(completion_tokens: np.ndarray) -> Iterator[slice]:
    """Cut rows into runs of bounded memory: 4,096 rows or half a million tokens, whichever is less."""
    ends = np.cumsum(completion_tokens, dtype=np.int64)
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        full = int(np.searchsorted(ends, before + _SLICE_TOKENS, side="right"))
        stop = min(max(full, start + 1), start + _SLICE_ROWS, len(ends))
        yield slice(start, stop)
        start = stop


def whole_prompts(rows: pa.Table) -> Iterator[slice]:
    """Cut rows of `Assembly.finished` into runs whose texts are of bounded memory, and that tear no prompt apart.

    4,096 rows or two million tokens, whichever is less; a larger prompt alone.
    """
    starts = np.flatnonzero(np.diff(rows["prompt_row"].to_numpy(), prepend=-1))
    ends = np.append(starts[1:], len(rows))
    tokens = np.concatenate(([0], np.cumsum(rows["completion_tokens"].to_numpy(), dtype=np.int64)))
    at = 0
    while at < len(starts):
        full = np.searchsorted(tokens[ends], tokens[starts[at]] + _TEXT_TOKENS, side="right")
        many = np.searchsorted(ends, starts[at] + _SLICE_ROWS, side="right")
        until = max(int(min(full, many)), at + 1)
        yield slice(int(starts[at]), int(ends[until - 1]))
        at = until


def rows_of(table: pa.Table, part: slice) -> pa.Table:
    """The rows of one slice, without copying."""
    return table.slice(part.start, part.stop - part.start)


def split_part(part: pa.Table, split: Splitter) -> list[Split]:
    """Thinking and answer of every row of a table of PART_SCHEMA."""
    completions, suffixes = part["completion"].to_pylist(), part["prompt_suffix"].to_pylist()
    return [split(completion or "", suffix or "") for completion, suffix in zip(completions, suffixes, strict=True)]
