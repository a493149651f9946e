"""What would other layouts of the same soft labels take on disk, and how much of a file would a later version share?

The labels are those that `balanced` keeps of real completions; every layout is one Parquet file. Pages stand for what a
hub stores once: a trace is put in the middle, or in front, and the bytes of pages that the file did not have are new.

    .venv/bin/python -m tests.benchmarks.tried_layouts
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.corpus.pages import page_header
from distill_data.file_hash import cache_folder
from distill_data.parquet import write_options
from distill_data.records import SoftLabels
from distill_data.soft_labels import support_offsets
from distill_data.teacher_config import SoftLabelSelection
from tests.benchmarks.distributions import measured
from tests.benchmarks.formats import flat_file, likeliest
from tests.benchmarks.report import Result, parser, publish
from tests.benchmarks.workload import PACKAGED_MODEL

IDS, VALUES = "support_ids", "support_logprobs"
_COMPRESSED_SIZE = 3  # field of a page's header


@dataclass(frozen=True)
class Layout:
    """Options of the writer that differ, and what becomes of the table; `why` it was not taken."""

    name: str
    why: str
    options: Callable[[dict[str, Any]], dict[str, Any]] = lambda options: options
    change: Callable[[pa.Table, SoftLabels], pa.Table] = lambda table, _: table


def _leaf(name: str) -> str:
    return f"{name}.list.element"


def _level(level: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda options: {**options, "compression_level": level}


def _encoded(name: str, encoding: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda options: {**options, "column_encoding": {**options["column_encoding"], _leaf(name): encoding}}


def _dictionary(options: dict[str, Any]) -> dict[str, Any]:
    encodings = {name: kind for name, kind in options["column_encoding"].items() if name != _leaf(IDS)}
    return {**options, "column_encoding": encodings, "use_dictionary": [*options["use_dictionary"], _leaf(IDS)]}


def _brotli(options: dict[str, Any]) -> dict[str, Any]:
    leaves = [*options["column_encoding"], "trace_id"]
    ids = {_leaf(IDS): 11}
    return {
        **options,
        "compression": {leaf: "brotli" if leaf in ids else "zstd" for leaf in leaves},
        "compression_level": {leaf: ids.get(leaf, 9) for leaf in leaves},
    }


def _with_values(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    """The table with other values in the same lists."""
    offsets = table[name].combine_chunks().offsets
    return table.set_column(
        table.schema.get_field_index(name), name, pa.ListArray.from_arrays(offsets, pa.array(values))
    )


def _ranks(labels: SoftLabels) -> np.ndarray:
    """Of every entry among its position's: int64 [S]."""
    starts = support_offsets(labels.support_counts)[:-1]
    return np.arange(len(labels.support_ids)) - np.repeat(starts, labels.support_counts)


def _by_frequency(table: pa.Table, labels: SoftLabels) -> pa.Table:
    _, inverse, counts = np.unique(labels.support_ids, return_inverse=True, return_counts=True)
    places = np.empty(len(counts), np.int32)
    places[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return _with_values(table, IDS, places[inverse])


def _sorted_ids(table: pa.Table, labels: SoftLabels) -> pa.Table:
    positions = np.repeat(np.arange(len(labels.support_counts)), labels.support_counts)
    order = np.lexsort((labels.support_ids, positions))
    return _with_values(_with_values(table, IDS, labels.support_ids[order]), VALUES, labels.support_logprobs[order])


def _by_rank(table: pa.Table, labels: SoftLabels) -> pa.Table:
    lengths = np.diff(table[IDS].combine_chunks().offsets.to_numpy())
    order = np.lexsort((_ranks(labels), np.repeat(np.arange(len(lengths)), lengths)))
    return _with_values(_with_values(table, IDS, labels.support_ids[order]), VALUES, labels.support_logprobs[order])


def _likeliest_apart(table: pa.Table, labels: SoftLabels) -> pa.Table:
    """The likeliest ids in a column of their own, beside the others."""
    first = _ranks(labels) == 0
    tokens = table["completion_token_ids"].combine_chunks().offsets
    ends = support_offsets(labels.support_counts - 1)[tokens.to_numpy()]
    others = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(labels.support_ids[~first]))
    likeliest_ids = pa.ListArray.from_arrays(tokens, pa.array(labels.support_ids[first]))
    return table.set_column(table.schema.get_field_index(IDS), IDS, others).append_column("first_ids", likeliest_ids)


def _differences(table: pa.Table, labels: SoftLabels) -> pa.Table:
    bits = labels.support_logprobs.view(np.int16)
    off = np.where(_ranks(labels) == 0, bits, bits - np.roll(bits, 1)).astype(np.int16)
    return _with_values(table, VALUES, off.view(np.float16))


def _less_median(table: pa.Table, labels: SoftLabels) -> pa.Table:
    bits, ranks = labels.support_logprobs.view(np.int16).astype(np.int32), _ranks(labels)
    medians = np.array([np.median(bits[ranks == rank]) for rank in range(ranks.max() + 1)]).astype(np.int32)
    return _with_values(table, VALUES, (bits - medians[ranks]).astype(np.int16).view(np.float16))


LAYOUTS = [
    Layout("as published", ""),
    Layout("zstd 3", "what parts are written with", _level(3)),
    Layout("zstd 19", "slow to write", _level(19)),
    Layout("ids by a Parquet dictionary", "a trace in front renumbers all ids behind it", _dictionary),
    Layout(
        "ids ranked by frequency", "plain readers need the ranking, which is not counted here", change=_by_frequency
    ),
    Layout("likeliest ids in a column of their own", "one more column", change=_likeliest_apart),
    Layout("by rank within a trace: all first, all second, …", "bigger", change=_by_rank),
    Layout(
        "ids sorted in every position, values beside them", "the likeliest no longer comes first", change=_sorted_ids
    ),
    Layout(
        "ids in 16 bits",
        "most vocabularies are larger",
        change=lambda table, labels: _with_values(table, IDS, labels.support_ids.astype(np.uint16).view(np.float16)),
    ),
    Layout("ids DELTA_BINARY_PACKED", "bigger", _encoded(IDS, "DELTA_BINARY_PACKED")),
    Layout("ids PLAIN", "bigger", _encoded(IDS, "PLAIN")),
    Layout("brotli 11 for ids", "slow to write", _brotli),
    Layout("values as differences to the one before", "plain readers have to add them up", change=_differences),
    Layout("values less the median of their rank", "plain readers need the medians", change=_less_median),
    Layout(
        "sampled log-probabilities in float16's precision",
        "they are kept exact",
        change=lambda table, labels: _with_values(
            table, "sampled_logprobs", labels.sampled_logprobs.astype(np.float16).astype(np.float32)
        ),
    ),
]


def written(layout: Layout, table: pa.Table, labels: SoftLabels) -> bytes:
    """The file."""
    changed, file = layout.change(table, labels), io.BytesIO()
    options = layout.options(write_options(table.schema))
    if "first_ids" in changed.schema.names:
        options["column_encoding"] = {**options["column_encoding"], _leaf("first_ids"): "BYTE_STREAM_SPLIT"}
    pq.write_table(changed, file, **options)
    return file.getvalue()


def pages(file: bytes) -> Iterator[tuple[bytes, int]]:
    """Hash and bytes of every page."""
    metadata = pq.read_metadata(io.BytesIO(file))
    for number in range(metadata.num_columns):
        column = metadata.row_group(0).column(number)
        at = min(offset for offset in (column.dictionary_page_offset, column.data_page_offset) if offset)
        end = at + column.total_compressed_size
        while at < end:
            header, length = page_header(file[at : at + 512], 0)
            page = file[at : at + length + header[_COMPRESSED_SIZE]]
            yield hashlib.sha256(page).digest(), len(page)
            at += len(page)


def new_share(before: bytes, after: bytes) -> float:
    """Of the later file's pages, by bytes, what the earlier one did not have."""
    known = {name for name, _ in pages(before)}
    sizes = list(pages(after))
    return sum(size for name, size in sizes if name not in known) / sum(size for _, size in sizes)


def later(traces: pa.Table, labels: SoftLabels, at: int) -> tuple[pa.Table, SoftLabels]:
    """Traces and labels with the last trace moved to row `at`: what a version with one more trace there looks like."""
    rows = np.insert(np.arange(len(traces) - 1), at, len(traces) - 1)
    tokens = traces["completion_token_ids"].combine_chunks().offsets.to_numpy()
    support = support_offsets(labels.support_counts)[tokens]
    taken = {
        name: np.concatenate([values[bounds[row] : bounds[row + 1]] for row in rows])
        for name, values in vars(labels).items()
        for bounds in [support if name in (IDS, VALUES) else tokens]
    }
    return traces.take(pa.array(rows)), replace(labels, **taken)


def repeated(traces: pa.Table, labels: SoftLabels, times: int) -> tuple[pa.Table, SoftLabels]:
    """Several times the traces, with other ids each time: as many pages as in a corpus."""
    shifted = [replace(labels, support_ids=(labels.support_ids + 7 * n) % 49_152) for n in range(times)]
    joined = {name: np.concatenate([vars(one)[name] for one in shifted]) for name in vars(labels)}
    return pa.concat_tables([traces] * times), replace(labels, **joined)


def measure(traces: pa.Table, labels: SoftLabels, times: int) -> dict[str, dict[str, float]]:
    """Figures by layout."""
    tokens, table = len(labels.support_counts), flat_file(traces, labels)
    many = repeated(traces, labels, times)
    first = without_last(*many)
    found: dict[str, dict[str, float]] = {}
    for layout in LAYOUTS:
        size, seconds = _timed(layout, table, labels)
        found[layout.name] = {"bytes_per_token": size / tokens, "tokens_per_second": tokens / seconds}
        if layout.options in (LAYOUTS[0].options, _dictionary):
            before = written(layout, flat_file(*first), first[1])
            for place, at in {"front": 0, "middle": len(first[0]) // 2}.items():
                moved = later(*many, at)
                found[layout.name][f"new_{place}"] = new_share(before, written(layout, flat_file(*moved), moved[1]))
    return found


def _timed(layout: Layout, table: pa.Table, labels: SoftLabels) -> tuple[int, float]:
    """Bytes, and seconds of the fastest of three writes."""
    spent = []
    for _ in range(3):
        began = time.perf_counter()
        size = len(written(layout, table, labels))
        spent.append(time.perf_counter() - began)
    return size, min(spent)


def without_last(traces: pa.Table, labels: SoftLabels) -> tuple[pa.Table, SoftLabels]:
    """All traces but the last."""
    tokens = int(traces["completion_token_ids"].combine_chunks().offsets[-2].as_py())
    support = int(support_offsets(labels.support_counts)[tokens])
    ends = {name: support if name in (IDS, VALUES) else tokens for name in vars(labels)}
    return traces.slice(0, len(traces) - 1), replace(
        labels, **{name: vars(labels)[name][: ends[name]] for name in ends}
    )


def result_of(figures: dict[str, dict[str, float]], tokens: int) -> Result:
    """The table: a line per layout."""
    base, by_dictionary = figures["as published"], figures["ids by a Parquet dictionary"]
    rows = [
        [
            layout.name,
            f"{found['bytes_per_token']:.1f}",
            f"{found['bytes_per_token'] - base['bytes_per_token']:+.1f}",
            f"{found['tokens_per_second']:,.0f}",
            f"{found['new_middle']:.1%}" if "new_middle" in found else "-",
            f"{found['new_front']:.1%}" if "new_front" in found else "-",
            layout.why,
        ]
        for layout, found in ((layout, figures[layout.name]) for layout in LAYOUTS)
    ]
    saved = base["bytes_per_token"] - by_dictionary["bytes_per_token"]
    return Result(
        name="tried_layouts",
        title="Layouts of soft labels that were tried",
        headline=f"A Parquet dictionary for ids would save {saved:.1f} of {base['bytes_per_token']:.1f} bytes per "
        f"token; with one trace more in front {by_dictionary['new_front']:.0%} of the file's bytes would be new, "
        f"against {base['new_front']:.1%} as it is.",
        header=["layout", "bytes/token", "difference", "tokens/s", "new, middle", "new, front", "why not"],
        rows=rows,
        figures={"tokens": tokens, "layouts": figures},
        note=f"What `balanced` keeps of {tokens:,} tokens of SmolLM2-135M-Instruct, the whole file, prompts' ids "
        "included. tokens/s: the best of three writes on one core. New: bytes of pages that a version with one trace "
        "fewer does not have, where that trace comes in the middle or in front of some 20 times as many, each time "
        "with other ids.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--tokens", type=int, default=20_480)
    options.add_argument("--model", default=PACKAGED_MODEL)
    options.add_argument("--times", type=int, default=20, help="as many tokens for what a later version shares")
    options.add_argument("--cache", type=Path, default=cache_folder() / "benchmarks", help="keeps the completions")
    chosen = options.parse_args(arguments)
    found = measured(chosen.cache, chosen.tokens, chosen.model)
    labels = likeliest(found, "plain", SoftLabelSelection(preset="balanced")).labels
    publish(result_of(measure(found.traces, labels, chosen.times), len(labels.support_counts)), chosen.out)


if __name__ == "__main__":
    main()
