"""Our own decoder against pyarrow's, on files as a corpus writes them and on ones that it has to leave to pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.corpus import data_file
from distill_data.corpus.data_file import RowGroup
from distill_data.corpus.list_column import ListColumn
from distill_data.errors import CorpusError
from distill_data.list_loops import zeros_of_levels
from distill_data.parquet import write_options
from distill_data.records import SOFT_LABEL_FIELDS, SOFT_LABELS_SCHEMA

LISTS = [name for name, _ in SOFT_LABEL_FIELDS]
OPTIONS = write_options(SOFT_LABELS_SCHEMA)


def labels(lengths: np.ndarray, support: int | None, seed: int = 0) -> pa.Table:
    """Traces of so many tokens, with a support of so many each, or of 1 to 64; some have no token at all."""
    random = np.random.default_rng(seed)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    counts = random.integers(1, 65, ends[-1]) if support is None else np.full(ends[-1], support)
    supports = np.concatenate([[0], np.cumsum(counts)])
    kept = int(supports[-1])
    prompts = np.arange(len(lengths) + 1) * 3
    columns = {
        "trace_id": pa.array([f"trace-{number}" for number in range(len(lengths))]),
        "prompt_token_ids": lists(prompts, random.integers(0, 2**31 - 1, prompts[-1])),
        "completion_token_ids": lists(ends, random.integers(0, 49_152, ends[-1])),
        "sampled_logprobs": lists(ends, -random.random(ends[-1])),
        "support_counts": lists(ends, counts),
        "support_ids": lists(supports[ends], random.integers(0, 152_064, kept)),
        "support_logprobs": lists(supports[ends], (-20 * random.random(kept)).astype(np.float16)),
    }
    return pa.table(columns).cast(SOFT_LABELS_SCHEMA)


def lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[pa.ListType]:
    """The kinds of the columns that our own decoder was asked for."""
    kinds: list[pa.ListType] = []

    class Watched(ListColumn):
        def __init__(self, file: int, place: Any, kind: pa.ListType):
            kinds.append(kind)
            super().__init__(file, place, kind)

    monkeypatch.setattr(data_file, "ListColumn", Watched)
    return kinds


def check(path: Path, groups: int, rows: int) -> None:
    """Every batch is pyarrow's, and sound."""
    columns = ["trace_id", *LISTS]
    with pq.ParquetFile(path) as reader:
        for number in range(groups):
            options: dict[str, Any] = {"batch_size": rows, "row_groups": [number], "columns": columns}
            expected = list(reader.iter_batches(**options))
            group = RowGroup(path, number, sum(map(len, expected)))
            found = list(group.batches(columns, rows))
            assert len(found) == len(expected)
            for one, other in zip(found, expected, strict=True):
                one.validate(full=True)
                assert one.schema == other.schema and one.equals(other)


LENGTHS = {
    "long-tailed": np.random.default_rng(1).geometric(0.01, 300),
    "short": np.random.default_rng(2).integers(1, 4, 500),  # levels as packed bits
    "some without tokens": np.random.default_rng(3).integers(0, 3, 400),
    "only without tokens": np.zeros(20, np.int64),
    "one": np.array([1]),
    "one long": np.array([1, 5000, 1]),  # over several pages
}


@pytest.mark.parametrize("rows", [1, 7, 256, 4096])
@pytest.mark.parametrize("support", [1, 32, None])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_batches_are_those_of_pyarrow(
    lengths: np.ndarray, support: int | None, rows: int, tmp_path: Path, decoded: list[pa.ListType]
) -> None:
    path = tmp_path / "labels.parquet"
    with pq.ParquetWriter(path, SOFT_LABELS_SCHEMA, **OPTIONS) as writer:
        for seed in range(2):
            writer.write_table(labels(lengths, support, seed))
    check(path, 2, rows)
    assert decoded == 2 * [SOFT_LABELS_SCHEMA.field(name).type for name in LISTS]


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("page", [1, 1000, 1 << 16, 1 << 24])
def test_pages_of_any_size(page: int, chunked: bool, tmp_path: Path, decoded: list[pa.ListType]) -> None:
    path = tmp_path / "labels.parquet"
    options = {**OPTIONS, "data_page_size": page, "use_content_defined_chunking": chunked, "write_batch_size": 64}
    pq.write_table(labels(LENGTHS["long-tailed"], None), path, **options)
    check(path, 1, 100)
    assert len(decoded) == len(LISTS)


def nullable(table: pa.Table) -> pa.Table:
    """As an older version of this project wrote it."""
    plain = [pa.field(field.name, pa.list_(field.type.value_type)) for field in table.schema if field.name in LISTS]
    return table.cast(pa.schema([pa.field("trace_id", pa.string()), *plain]))


OTHERS: dict[str, dict[str, Any]] = {
    "compression": {"compression": "gzip"},
    "page version": {"data_page_version": "2.0"},
    "dictionary": {"use_dictionary": True, "column_encoding": None},
    "encoding": {"column_encoding": {f"{name}.list.element": "PLAIN" for name in LISTS}},
}


@pytest.mark.parametrize("kind", [*OTHERS, "nullable"])
def test_what_is_written_otherwise_is_left_to_pyarrow(kind: str, tmp_path: Path, decoded: list[pa.ListType]) -> None:
    path, table = tmp_path / "labels.parquet", labels(LENGTHS["long-tailed"], None)
    pq.write_table(nullable(table) if kind == "nullable" else table, path, **{**OPTIONS, **OTHERS.get(kind, {})})
    check(path, 1, 100)
    assert not decoded


@pytest.mark.parametrize("column", range(1, 7))
@pytest.mark.parametrize("checksum", [True, False])
def test_a_damaged_page_is_refused(column: int, checksum: bool, tmp_path: Path) -> None:
    """With a checksum whatever byte it is; without, what cannot be read. Never a crash, never a hang."""
    path, table = tmp_path / "labels.parquet", labels(LENGTHS["long-tailed"], None)
    pq.write_table(table, path, **{**OPTIONS, "write_page_checksum": checksum})
    group, whole = RowGroup(path, 0, len(table)), path.read_bytes()
    chunk = pq.read_metadata(path).row_group(0).column(column)
    start, stop = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
    refused = 0
    for at in [*range(start, start + 24), *np.linspace(start + 24, stop - 1, 40, dtype=int).tolist()]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            read = list(group.batches(["trace_id", *LISTS], 64))
        except CorpusError as error:
            assert str(error).startswith(f"{path} cannot be read (") and "distill-data corpus verify" in str(error)
            refused += 1
        else:  # a header's byte that says nothing about the data
            same = pa.Table.from_batches(read).equals(table)
            assert same or not checksum
    assert refused >= (40 if checksum else 20)


def test_a_cut_or_missing_file_is_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "labels.parquet", labels(LENGTHS["short"], 32)
    pq.write_table(table, path, **OPTIONS)
    with pytest.raises(CorpusError, match="does not have its 501 rows"):
        list(RowGroup(path, 0, 501).batches(LISTS, 64))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorpusError, match="cannot be read"):
        list(RowGroup(path, 0, 500).batches(LISTS, 64))
    path.unlink()
    with pytest.raises(CorpusError, match="cannot be read"):
        list(RowGroup(path, 0, 500).batches(LISTS, 64))


@pytest.mark.parametrize(
    ("encoded", "count", "expected"),
    [
        ([10, 0], 5, [0, 1, 2, 3, 4]),  # a run of five zeros
        ([10, 1], 5, []),
        ([3, 0b10110101], 8, [1, 3, 6]),  # eight packed bits
        ([3, 0b10110101], 3, [1]),  # padded
        ([4, 0, 3, 0b11111110, 6, 1], 13, [0, 1, 2]),
        ([0x80, 0x02, 0], 128, list(range(128))),  # a length of two bytes
        ([10, 0], 6, None),  # too few
        ([], 1, None),
        ([10], 5, None),
        ([10, 2], 5, None),  # no level
        ([0, 0], 5, None),  # an empty run would never end
        ([3], 8, None),
        ([0xFF] * 9, 8, None),  # a length without end
    ],
)
def test_levels(encoded: list[int], count: int, expected: list[int] | None) -> None:
    out = np.empty(count, np.int64)
    found = zeros_of_levels(np.array(encoded, np.uint8), count, out)
    assert found == (-1 if expected is None else len(expected))
    assert expected is None or out[:found].tolist() == expected
