from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.corpus.write import parquet_writer
from distill_data.parquet import encode, write_options
from distill_data.records import SOFT_LABELS_SCHEMA
from distill_data.soft_labels import select_support
from distill_data.teacher_config import SoftLabelSelection


def make_rows(traces: int, tokens: int) -> pa.Table:
    """Rows of SOFT_LABELS_SCHEMA, every trace of as many tokens."""
    random = np.random.default_rng(0)
    rows = []
    for trace in range(traces):
        logprobs = -np.sort(random.gamma(1.0, 2.0, (tokens, 20)), axis=1) - 0.1
        ids = np.argsort(random.random((tokens, 300)), axis=1)[:, :20]
        labels = select_support(ids, logprobs, logprobs[:, 0], SoftLabelSelection())
        prompt, completion = random.integers(0, 300, (2, tokens))
        lists = {"prompt_token_ids": prompt, "completion_token_ids": completion, **vars(labels)}
        rows.append({"trace_id": f"trace-{trace}", **{name: list(array) for name, array in lists.items()}})
    return pa.Table.from_pylist(rows, schema=SOFT_LABELS_SCHEMA)


def test_a_published_file_is_read_without_our_code(tmp_path: Path) -> None:
    from datasets import load_dataset

    rows = make_rows(8, 50)
    with parquet_writer(tmp_path / "a.parquet", SOFT_LABELS_SCHEMA, {}) as writer:
        writer.write_table(rows)
    assert pq.read_table(tmp_path / "a.parquet").equals(rows)
    read = load_dataset(
        "parquet", data_files=str(tmp_path / "a.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert read.to_list() == rows.to_pylist()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [field.name for field in SOFT_LABELS_SCHEMA][1:])
def test_soft_labels_are_split_into_planes_of_bytes(name: str) -> None:
    rows = make_rows(8, 50)
    assert write_options(rows.schema)["column_encoding"][f"{name}.list.element"] == "BYTE_STREAM_SPLIT"
    group = pq.ParquetFile(pa.BufferReader(encode(rows))).metadata.row_group(0)
    columns = (group.column(number) for number in range(group.num_columns))
    column = next(one for one in columns if one.path_in_schema.startswith(name))
    assert "BYTE_STREAM_SPLIT" in column.encodings and column.compression == "ZSTD"
