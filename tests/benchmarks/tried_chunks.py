"""Which pages of a later version are those of the version before, where traces are dropped here and there?

Soft labels are written as a corpus writes them, with pages that end behind traces which their own hashes choose, and
with pyarrow's content-defined chunking within several limits; once whole and once without every 50th trace. Bytes of
pages that the first file did not have are new; xet's chunks of about 64 KiB come on top (`republish` has them).

    .venv/bin/python -m tests.benchmarks.tried_chunks
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.corpus import cuts
from distill_data.corpus.write import PAGE_PER_CHUNK
from distill_data.parquet import write_options
from distill_data.records import SOFT_LABEL_FIELDS, SOFT_LABELS_SCHEMA
from tests.benchmarks.report import Result, parser, publish
from tests.benchmarks.republish import random_traces
from tests.benchmarks.tried_layouts import pages
from tests.benchmarks.workload import in_pages

KIB = 1 << 10
LENGTHS = (500, 4000)  # completion tokens of every trace
TOKENS = 400_000  # of a file
DROPPED = 50  # every so manieth trace


@dataclass(frozen=True)
class Limits:
    """Of content-defined chunking, as pyarrow takes them; sizes are of values before encoding, levels included."""

    smallest: int
    largest: int
    level: int

    @property
    def name(self) -> str:
        return f"{self.smallest // KIB} to {self.largest // KIB} KiB at level {self.level}"

    def option(self) -> dict[str, int]:
        return {"min_chunk_size": self.smallest, "max_chunk_size": self.largest, "norm_level": self.level}


PYARROWS = Limits(256 * KIB, 1024 * KIB, 0)  # its own
TRIED = [
    PYARROWS,
    Limits(256 * KIB, 1024 * KIB, 2),
    Limits(64 * KIB, 1024 * KIB, 0),
    Limits(64 * KIB, 256 * KIB, 0),
    Limits(16 * KIB, 256 * KIB, -2),
    Limits(16 * KIB, 64 * KIB, 0),
]


@dataclass(frozen=True)
class Found:
    """What limits give for traces of one length."""

    pages_by: str
    tokens: int
    bytes: int
    pages: int
    new_share: float  # of the later file's bytes
    ratio: float  # new bytes for each byte of the dropped traces


def make_table(traces: int, tokens: int) -> pa.Table:
    """Soft labels of traces that are all different."""
    columns = random_traces(traces, seed=0, tokens=tokens)
    labels = pa.table({name: columns[name] for name, _ in SOFT_LABEL_FIELDS})
    names = pa.array([f"01234567-{number:024x}-0" for number in range(traces)])
    return labels.add_column(0, "trace_id", names).cast(SOFT_LABELS_SCHEMA)


@dataclass(frozen=True)
class ByTraces:
    """Of pages as they are published, with this reach."""

    reach: int

    @property
    def name(self) -> str:
        return f"by traces, reach {self.reach:,} tokens"


AS_PUBLISHED = ByTraces(cuts.PAGE_REACH)


def written(table: pa.Table, way: Limits | ByTraces) -> bytes:
    """The file, of one row group."""
    file, options = io.BytesIO(), write_options(table.schema)
    if isinstance(way, Limits):
        options["use_content_defined_chunking"] = way.option()
    else:
        table, options = in_pages(table, way.reach), options | PAGE_PER_CHUNK
    pq.write_table(table, file, **options)
    return file.getvalue()


def measure(tokens: int, total: int) -> list[Found]:
    """As published and every one of TRIED, for traces of this length and so many tokens in all."""
    table = make_table(total // tokens, tokens)
    kept = np.flatnonzero(np.arange(len(table)) % DROPPED != DROPPED // 2)
    dropped = 1 - len(kept) / len(table)
    found = []
    for way in [AS_PUBLISHED, *TRIED]:
        first = written(table, way)
        known = {name for name, _ in pages(first)}
        later = list(pages(written(table.take(pa.array(kept)), way)))
        new = sum(size for name, size in later if name not in known)
        share, ratio = new / sum(size for _, size in later), new / (dropped * len(first))
        found.append(Found(way.name, tokens, len(first), len(later), share, ratio))
    return found


def result_of(found: list[Found]) -> Result:
    """A line per way and length."""
    usual, ours = ({one.tokens: one for one in found if one.pages_by == way.name} for way in (PYARROWS, AS_PUBLISHED))
    rows = [_row(one, usual[one.tokens]) for one in found]
    said = [
        f"{ours[tokens].new_share:.0%} of the bytes where traces have {tokens:,} tokens ({usual[tokens].new_share:.0%} "
        f"by pyarrow's own, in files {1 - usual[tokens].bytes / ours[tokens].bytes:.1%} smaller)"
        for tokens in LENGTHS
    ]
    headline = f"Where every {DROPPED}th trace is dropped, new pages have {' and '.join(said)}."
    return Result(
        name="tried_chunks",
        title="Pages that stay the same where traces are dropped here and there",
        headline=headline,
        header=["pages", "tokens of a trace", "file", "number", "new bytes", "new / dropped"],
        rows=rows,
        figures={"dropped_every": DROPPED, "found": [asdict(one) for one in found]},
        note="By pages, before xet's chunks. The file is compared with that of pyarrow's own limits.",
    )


def _row(one: Found, usual: Found) -> list[str]:
    size = f"{one.bytes / usual.bytes - 1:+.1%}"
    return [one.pages_by, f"{one.tokens:,}", size, f"{one.pages:,}", f"{one.new_share:.0%}", f"{one.ratio:.1f}"]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--tokens", type=int, default=TOKENS, help="of a file")
    chosen = options.parse_args(arguments)
    publish(result_of([one for tokens in LENGTHS for one in measure(tokens, chosen.tokens)]), chosen.out)


if __name__ == "__main__":
    main()
