from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data import trace_store
from distill_data.errors import TraceStoreError
from distill_data.records import PART_SCHEMA, SoftLabels, Trace
from distill_data.soft_labels import empty_soft_labels
from distill_data.trace_store import TraceStore, content_digest, traces_to_table

TEACHER = "0123456789abcdef"
TEXTS = [
    "",
    "plain",
    "Grüße 你好 🙂",
    "مرحبا\r\n\tनमस्ते",
    "e\u0301 \u00e9 \u200d\ufeff\x00\x1b",
    "\U0001d518 \U00013080 \U0010ffff",
]


def make_trace(seed: int, sample: int = 0, text: str | None = None, **changes: Any) -> Trace:
    rng = np.random.default_rng(seed)
    tokens = int(rng.integers(1, 9))
    counts = rng.integers(1, 5, tokens).astype(np.uint8)
    labels = SoftLabels(
        sampled_logprobs=-rng.exponential(1, tokens).astype(np.float32),
        support_counts=counts,
        support_ids=rng.integers(0, 2**31 - 1, counts.sum()).astype(np.int32),
        support_logprobs=-rng.exponential(1, counts.sum()).astype(np.float16),
    )
    trace = Trace(
        prompt_id=f"prompt{seed}",
        sample_index=sample,
        prompt_token_ids=rng.integers(0, 1000, 4).astype(np.int32),
        prompt_suffix="<think>\n",
        completion_token_ids=rng.integers(0, 1000, tokens).astype(np.int32),
        completion=TEXTS[seed % len(TEXTS)] if text is None else text,
        finish_reason="stop",
        soft_labels=labels,
    )
    return replace(trace, **changes)


def failed_trace(seed: int, error: str = "prompt_too_long") -> Trace:
    return make_trace(
        seed,
        text="",
        completion_token_ids=np.empty(0, np.int32),
        soft_labels=empty_soft_labels(),
        finish_reason="error",
        error=error,
        error_detail="why",
    )


def keys(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table["prompt_id"].to_pylist(), table["sample_index"].to_pylist(), strict=True))


@pytest.fixture
def store(tmp_path: Path) -> TraceStore:
    return TraceStore(tmp_path, TEACHER)


def test_what_is_read_is_what_was_committed(store: TraceStore) -> None:
    traces = [make_trace(seed, seed % 3) for seed in range(12)]
    store.commit(traces)
    index = store.index()
    table = store.read(index)
    assert table.schema == PART_SCHEMA
    assert keys(table) == [(trace.prompt_id, trace.sample_index) for trace in traces]
    for row, trace in zip(table.to_pylist(), traces, strict=True):
        labels = trace.soft_labels
        assert row["completion"].encode() == trace.completion.encode()
        assert row["prompt_token_ids"] == trace.prompt_token_ids.tolist()
        assert row["completion_token_ids"] == trace.completion_token_ids.tolist()
        assert np.array(row["sampled_logprobs"], np.float32).tobytes() == labels.sampled_logprobs.tobytes()
        assert bytes(row["support_counts"]) == labels.support_counts.tobytes()
        assert np.array(row["support_ids"], np.int32).tobytes() == labels.support_ids.tobytes()
        assert np.array(row["support_logprobs"], np.float16).tobytes() == labels.support_logprobs.tobytes()
        assert (row["prompt_tokens"], row["completion_tokens"]) == (4, len(trace.completion_token_ids))
        assert row["mean_logprob"] == pytest.approx(labels.sampled_logprobs.mean())
        assert row["content_digest"] == content_digest(trace)
        assert (row["prompt_suffix"], row["error"], row["error_detail"]) == ("<think>\n", None, None)


def test_a_parts_name_is_the_hash_of_its_bytes(store: TraceStore) -> None:
    traces = [make_trace(seed) for seed in range(5)]
    part = store.commit(traces)
    file = store.folder / part.name
    assert part.name == f"part-{hashlib.sha256(file.read_bytes()).hexdigest()[:32]}.parquet"
    assert (part.rows, part.bytes) == (5, file.stat().st_size)
    assert part.completion_tokens == sum(len(trace.completion_token_ids) for trace in traces)
    assert store.size() == file.stat().st_size
    assert sorted(entry.name for entry in store.folder.iterdir()) == [part.name]
    assert store.commit(traces) == part  # the same traces are the same part
    assert store.parts() == [part.name]


def test_traces_that_failed_keep_their_reason(store: TraceStore) -> None:
    part = store.commit([failed_trace(1), make_trace(2), failed_trace(3, "nonfinite_logprobs")])
    assert part.completion_tokens == len(make_trace(2).completion_token_ids)
    assert store.index()["error"].to_pylist() == ["prompt_too_long", None, "nonfinite_logprobs"]
    row = store.read(store.index()).to_pylist()[0]
    assert (row["finish_reason"], row["error_detail"], row["mean_logprob"]) == ("error", "why", None)
    assert (row["completion_token_ids"], row["support_ids"], row["completion_tokens"]) == ([], [], 0)


def test_an_empty_store(store: TraceStore) -> None:
    assert store.parts() == []
    assert store.size() == 0
    assert len(store.index()) == 0
    assert store.read(store.index()).schema == PART_SCHEMA
    assert store.read(store.index(), ["error", "completion"]).schema.names == ["error", "completion"]


def test_rows_come_in_the_order_asked_for_with_only_the_columns_asked_for(store: TraceStore) -> None:
    for start in range(0, 42, 7):  # more parts than stay open
        store.commit([make_trace(seed) for seed in range(start, start + 7)])
    index = store.index()
    whole = store.read(index)
    assert sorted(whole["prompt_id"].to_pylist()) == sorted(f"prompt{seed}" for seed in range(42))
    order = np.random.default_rng(0).permutation(42)[:30]
    columns = ["error", "support_logprobs", "prompt_id", "completion"]
    some = store.read(index.take(order), columns)
    assert some.equals(whole.take(order).select(columns))
    twice = store.read(index.take([3, 3, 0]), ["prompt_id"])
    assert twice["prompt_id"].to_pylist() == whole["prompt_id"].take([3, 3, 0]).to_pylist()


def test_one_changed_byte_is_found_and_named(store: TraceStore) -> None:
    part = store.commit([make_trace(seed) for seed in range(20)])
    file = store.folder / part.name
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    reader = TraceStore(store.folder.parents[1], TEACHER)
    with pytest.raises(TraceStoreError, match=rf"{part.name} is damaged \(its bytes do not match the hash"):
        reader.read(pa.table({"part": [part.name], "row": [0]}))


def test_a_part_that_is_cut_short_is_named_by_the_index(store: TraceStore) -> None:
    part = store.commit([make_trace(seed) for seed in range(20)])
    file = store.folder / part.name
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(TraceStoreError, match=rf"{part.name} is damaged .*delete it and run"):
        store.index()


def test_a_missing_part_is_named(store: TraceStore) -> None:
    part = store.commit([make_trace(1)])
    index = store.index()
    (store.folder / part.name).unlink()
    with pytest.raises(TraceStoreError, match=rf"{part.name} is damaged \(No such file or directory\)"):
        store.read(index)


def test_half_written_files_are_never_seen(store: TraceStore) -> None:
    part = store.commit([make_trace(1)])
    for name in (".part-0.parquet.17.tmp", "part-0.parquet.tmp", "teacher.json"):
        (store.folder / name).write_bytes(b"half")
    assert store.parts() == [part.name]
    assert keys(store.index()) == [("prompt1", 0)]


@pytest.mark.parametrize("first", [0, 1])
def test_the_same_trace_from_two_writers_is_there_once_whoever_was_first(tmp_path: Path, first: int) -> None:
    twice = [[make_trace(1, text="one"), make_trace(2)], [make_trace(3), make_trace(1, text="other")]]
    stores = [TraceStore(tmp_path, TEACHER), TraceStore(tmp_path, TEACHER)]
    parts = {}
    for writer in (first, 1 - first):
        parts[stores[writer].commit(twice[writer]).name] = twice[writer]
    index = stores[0].index()
    assert sorted(keys(index)) == [("prompt1", 0), ("prompt2", 0), ("prompt3", 0)]
    chosen = next(trace for trace in parts[min(parts)] if trace.prompt_id == "prompt1")
    row = keys(index).index(("prompt1", 0))
    assert index["content_digest"][row].as_py() == content_digest(chosen)
    assert stores[1].read(index.slice(row, 1), ["completion"])["completion"].to_pylist() == [chosen.completion]


def test_a_trace_beats_its_own_failure(store: TraceStore) -> None:
    for seed in range(6):  # whichever part sorts first
        store.commit([failed_trace(seed)])
        store.commit([make_trace(seed)])
    index = store.index()
    assert sorted(keys(index)) == [(f"prompt{seed}", 0) for seed in range(6)]
    assert index["error"].null_count == 6


def test_the_content_digest_is_of_everything_the_teacher_said() -> None:
    base = make_trace(4)
    labels = base.soft_labels
    others = [
        replace(base, completion=base.completion + " "),
        replace(base, finish_reason="length"),
        replace(base, error="request_failed"),
        replace(base, prompt_token_ids=base.prompt_token_ids[::-1]),
        replace(base, completion_token_ids=base.completion_token_ids + 1),
        replace(base, soft_labels=replace(labels, sampled_logprobs=labels.sampled_logprobs - np.float32(1))),
        replace(base, soft_labels=replace(labels, support_ids=labels.support_ids[::-1])),
        replace(base, soft_labels=replace(labels, support_logprobs=labels.support_logprobs - np.float16(1))),
    ]
    assert len({content_digest(trace) for trace in [base, *others]}) == len(others) + 1
    elsewhere = replace(base, prompt_id="other", sample_index=7, prompt_suffix="")
    assert content_digest(elsewhere) == content_digest(base)


def test_the_description_is_written_once(store: TraceStore) -> None:
    with pytest.raises(TraceStoreError, match=r"teacher\.json is missing: run `distill-data build`"):
        store.description()
    store.describe({"teacher_id": TEACHER, "name": "Größe"})
    store.describe({"teacher_id": "other"})
    assert store.description() == {"teacher_id": TEACHER, "name": "Größe"}


def fail(number: int) -> Any:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return failing


def test_a_full_disk_leaves_nothing_half_written(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store.commit([make_trace(1)])
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    with pytest.raises(TraceStoreError, match=r"No space left on device: free space .* everything committed before"):
        store.commit([make_trace(2)])
    with pytest.raises(TraceStoreError, match=r"cannot write .*teacher\.json: No space left"):
        store.describe({})
    monkeypatch.undo()
    assert [entry.name for entry in store.folder.iterdir()] == [kept.name]
    assert keys(store.index()) == [("prompt1", 0)]


def test_a_read_only_folder_is_told(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_store, "place", fail(errno.EROFS))
    with pytest.raises(TraceStoreError, match=r"cannot write .*part-.*: Read-only file system"):
        store.commit([make_trace(2)])


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(TraceStoreError, match=rf"cannot create {tmp_path}/root/traces/{TEACHER}: .*: set root:"):
        TraceStore(tmp_path / "root", TEACHER).commit([make_trace(1)])


def test_a_part_is_small_and_split_by_bytes(store: TraceStore) -> None:
    part = store.commit([make_trace(seed) for seed in range(50)])
    group = pq.ParquetFile(store.folder / part.name).metadata.row_group(0)
    encodings = {group.column(at).path_in_schema: group.column(at).encodings for at in range(group.num_columns)}
    for name in ("support_logprobs", "support_ids", "support_counts", "sampled_logprobs", "completion_token_ids"):
        assert "BYTE_STREAM_SPLIT" in encodings[f"{name}.list.element"]
        assert "RLE_DICTIONARY" not in encodings[f"{name}.list.element"]
    assert {group.column(at).compression for at in range(group.num_columns)} == {"ZSTD"}


def test_no_traces_are_an_empty_table() -> None:
    nothing: Sequence[Trace] = []
    assert traces_to_table(nothing).equals(PART_SCHEMA.empty_table())
