from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data import part_file
from distill_data.errors import TraceStoreError
from distill_data.part_file import INDEX_COLUMNS
from distill_data.records import PART_SCHEMA, SoftLabels, Trace
from distill_data.soft_labels import empty_soft_labels
from distill_data.trace_store import TraceStore
from distill_data.trace_table import content_digest, traces_to_table

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


def new_store(root: Path) -> TraceStore:
    store = TraceStore(root, TEACHER)
    store.folder.mkdir(parents=True, exist_ok=True)
    store.describe({"teacher_id": TEACHER, "name": "Größe"})
    return store


@pytest.fixture
def store(tmp_path: Path) -> TraceStore:
    return new_store(tmp_path)


def names(store: TraceStore) -> list[str]:
    return sorted(entry.name for entry in store.folder.iterdir())


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
    assert names(store) == [part.name, "teacher.json"]
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


def read_all(store: TraceStore) -> tuple[pa.Table, pa.Table]:
    index = store.index()
    return index, store.read(index)


@pytest.mark.parametrize("bit", [0, 3, 7])
def test_no_flipped_byte_passes_for_what_was_written(store: TraceStore, bit: int) -> None:
    part = store.commit([make_trace(seed) for seed in range(20)])
    file = store.folder / part.name
    whole, (index, rows) = file.read_bytes(), read_all(store)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rng = np.random.default_rng(bit)
    positions = [*rng.integers(0, footer, 60), *rng.integers(footer, len(whole), 60)]
    unseen_by_the_index = 0
    for at in positions:
        data = bytearray(whole)
        data[at] ^= 1 << bit
        file.write_bytes(data)
        try:
            assert store.index().equals(index)
            unseen_by_the_index += 1
        except TraceStoreError as error:
            assert str(file) in str(error)
        with pytest.raises(TraceStoreError, match=rf"{part.name} is damaged \(its bytes do not match the hash"):
            TraceStore(store.folder.parents[1], TEACHER).read(index)
    assert unseen_by_the_index < len(positions)  # bytes of columns that the index does not read
    file.write_bytes(whole)
    assert store.read(store.index()).equals(rows)


def test_some_columns_are_read_without_the_rest_of_a_part(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    part = store.commit([make_trace(seed, text=f"said {seed}") for seed in range(20)])
    file, index = store.folder / part.name, store.index()
    monkeypatch.setattr(Path, "read_bytes", fail(errno.EIO))
    whole = pq.ParquetFile(file).read()
    for columns in (["completion"], ["mean_logprob", "error", "completion"]):
        assert store.read(index, columns).equals(whole.select(columns).replace_schema_metadata(None))
    assert store.columns_of(part.name, ["support_counts"]).num_rows == 20


@pytest.mark.parametrize("column", ["completion", "mean_logprob", "support_logprobs"])
def test_a_flipped_byte_in_a_column_is_found_where_that_alone_is_read(store: TraceStore, column: str) -> None:
    part = store.commit([make_trace(seed, text=f"said {seed}") for seed in range(200)])
    file, index, data = store.folder / part.name, store.index(), bytearray((store.folder / part.name).read_bytes())
    group = pq.read_metadata(file).row_group(0)
    chunks = [group.column(at) for at in range(group.num_columns)]
    chunk = next(chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    data[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 1] ^= 16
    file.write_bytes(data)
    others = [name for name in ("completion", "mean_logprob", "error") if name != column]
    assert len(store.read(index, others)) == 200
    with pytest.raises(TraceStoreError, match=rf"{part.name} is damaged \(.*CRC checksum.*\): restore it"):
        store.read(index, [column])


@pytest.mark.parametrize("column", INDEX_COLUMNS)
def test_a_flipped_byte_in_an_index_column_is_found_by_planning(store: TraceStore, column: str) -> None:
    part = store.commit([make_trace(seed, text="x") for seed in range(200)] + [failed_trace(200)])
    file = store.folder / part.name
    group = pq.read_metadata(file).row_group(0)
    chunk = next(group.column(at) for at in range(group.num_columns) if group.column(at).path_in_schema == column)
    data = bytearray(file.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start + chunk.total_compressed_size - 1] ^= 16  # the last byte of its last page
    file.write_bytes(data)
    with pytest.raises(TraceStoreError, match=rf"{part.name} is damaged \(.*CRC checksum.*\): restore it"):
        store.index()


def test_a_footer_that_tells_of_other_values_is_found_by_planning(store: TraceStore) -> None:
    part = store.commit([make_trace(seed) for seed in range(20)])
    file = store.folder / part.name
    metadata = pq.read_metadata(file).metadata
    other = {"prompt_tokens": "completion_tokens", "completion_tokens": "prompt_tokens"}
    swapped = pq.read_table(file).rename_columns([other.get(name, name) for name in PART_SCHEMA.names])
    pq.write_table(swapped.replace_schema_metadata(metadata), file)
    with pytest.raises(TraceStoreError, match=r"is damaged \(prompt_tokens does not match its hash in the metadata"):
        store.index()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


def other_columns(file: Path) -> None:
    pq.write_table(pq.read_table(file).drop_columns(["error"]), file)


def other_types(file: Path) -> None:
    table = pq.read_table(file)
    pq.write_table(table.set_column(1, "sample_index", table["sample_index"].cast(pa.int64())), file)


def other_kind(file: Path) -> None:
    file.write_text("prompt_id,sample_index")


@pytest.mark.parametrize("damage", [cut, empty, folder_instead, other_columns, other_types, other_kind])
def test_what_is_no_whole_part_is_named(store: TraceStore, damage: Callable[[Path], None]) -> None:
    part = store.commit([make_trace(seed) for seed in range(20)])
    index = store.index()
    damage(store.folder / part.name)
    for look in (store.index, lambda: store.read(index)):
        with pytest.raises(TraceStoreError, match=rf"{store.folder / part.name} is damaged .*delete it and run"):
            look()


def test_a_part_of_a_newer_schema_asks_for_an_upgrade(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_file, "SCHEMA_VERSION", 2)
    part = store.commit([make_trace(1)])
    index = store.index()
    monkeypatch.undo()
    for look in (store.index, lambda: store.read(index)):
        with pytest.raises(TraceStoreError, match=rf"{part.name} has schema version 2 .*reads up to 1: upgrade"):
            look()


def test_a_part_from_before_there_were_checksums_is_read(store: TraceStore) -> None:
    traces = [make_trace(seed) for seed in range(5)]
    table = traces_to_table(traces)
    pq.write_table(table, store.folder / "new")
    name = f"part-{hashlib.sha256((store.folder / 'new').read_bytes()).hexdigest()[:32]}.parquet"
    os.rename(store.folder / "new", store.folder / name)
    index, rows = read_all(store)
    assert index["part"].to_pylist() == [name] * 5
    assert rows.equals(table)
    assert store.read(index, ["completion", "error"]).equals(table.select(["completion", "error"]))
    data = bytearray((store.folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (store.folder / name).write_bytes(data)
    with pytest.raises(TraceStoreError, match=r"is damaged \(its bytes do not match the hash"):
        TraceStore(store.folder.parents[1], TEACHER).read(index, ["completion"])


def test_a_renamed_part_is_refused(store: TraceStore) -> None:
    part = store.commit([make_trace(1)])
    os.rename(store.folder / part.name, store.folder / f"part-{'0' * 32}.parquet")
    with pytest.raises(TraceStoreError, match=r"part-0+\.parquet is damaged \(its bytes do not match the hash"):
        read_all(store)


def test_a_missing_part_is_named(store: TraceStore) -> None:
    part = store.commit([make_trace(1)])
    index = store.index()
    (store.folder / part.name).unlink()
    with pytest.raises(TraceStoreError, match=rf"{part.name} is damaged \(No such file or directory\)"):
        store.read(index)


def test_a_disk_that_does_not_answer_is_no_damage(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    part = store.commit([make_trace(1)])
    index = store.index()
    monkeypatch.setattr(Path, "read_bytes", fail(errno.EIO))
    with pytest.raises(TraceStoreError, match=rf"{part.name} cannot be read \(Input/output error\): mount or fix"):
        store.read(index)
    monkeypatch.setattr(os, "scandir", fail(errno.ESTALE))
    with pytest.raises(TraceStoreError, match=rf"cannot read {store.folder}: Stale file handle: mount or fix"):
        store.index()


def test_half_written_files_are_never_seen(store: TraceStore) -> None:
    part = store.commit([make_trace(1)])
    left = [".part-0.parquet.17.tmp", ".teacher.json.18.tmp"]
    for name in (*left, "part-0.parquet.tmp", "teacher.json"):
        (store.folder / name).write_bytes(b"half")
    assert store.parts() == [part.name]
    assert keys(store.index()) == [("prompt1", 0)]
    store.remove_leftovers()
    assert names(store) == sorted([part.name, "part-0.parquet.tmp", "teacher.json"])
    store.remove_leftovers()


def test_leftovers_that_cannot_be_deleted_are_told(store: TraceStore) -> None:
    (store.folder / ".part-0.parquet.17.tmp").mkdir()
    with pytest.raises(TraceStoreError, match=r"cannot delete .*\.part-0\.parquet\.17\.tmp: .*: let this user"):
        store.remove_leftovers()


@pytest.mark.parametrize("first", [0, 1])
def test_the_same_trace_from_two_writers_is_there_once_whoever_was_first(tmp_path: Path, first: int) -> None:
    twice = [[make_trace(1, text="one"), make_trace(2)], [make_trace(3), make_trace(1, text="other")]]
    stores = [new_store(tmp_path), new_store(tmp_path)]
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


def of_length(seed: int, tokens: int, finish_reason: str) -> Trace:
    """Prompt 0's trace, with so many tokens; `seed` makes it another attempt, in a part of its own."""
    labels = SoftLabels(
        np.full(tokens, -1.0 - seed, np.float32), np.ones(tokens, np.uint8), np.zeros(tokens, np.int32),
        np.full(tokens, -1.0, np.float16),
    )  # fmt: skip
    ids = np.full(tokens, seed, np.int32)
    return make_trace(0, completion_token_ids=ids, soft_labels=labels, finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (("stop", 2), ("length", 9)),
        (("stop", 2), ("context", 9)),
        (("length", 9), ("length", 8)),  # made again with more max_tokens
        (("context", 9), ("context", 8)),  # … with more context
        (("length", 9), ("context", 8)),
        (("context", 9), ("length", 8)),
        (("context", 8), ("length", 8)),  # the context ended it: more max_tokens would not help
        (("stop", 9), ("stop", 8)),
    ],
)
def test_of_two_attempts_the_whole_one_stays_then_the_longest(
    tmp_path: Path, better: tuple[str, int], worse: tuple[str, int]
) -> None:
    for seed in range(6):  # whichever part sorts first
        store = TraceStore(tmp_path, f"{seed}" * 16)
        store.folder.mkdir(parents=True)
        for reason, tokens in (better, worse):
            store.commit([of_length(seed, tokens, reason), make_trace(seed + 9)])
        index = store.index()
        row = keys(index).index(("prompt0", 0))
        assert (index["finish_reason"][row].as_py(), index["completion_tokens"][row].as_py()) == better
        assert index["failed_too"].to_pylist() == [False, False]


@pytest.mark.parametrize(
    ("error", "failed_too"),
    [("request_failed", True), ("engine_died", True), ("nonfinite_logprobs", True), ("prompt_too_long", False)],
)
def test_a_failure_beside_a_trace_is_told(store: TraceStore, error: str, failed_too: bool) -> None:
    store.commit([failed_trace(0, error), make_trace(1), failed_trace(2, error)])
    assert store.index()["failed_too"].to_pylist() == [False] * 3  # nothing is there twice
    store.commit([make_trace(0)])
    index = store.index()
    assert dict(zip(keys(index), index["failed_too"].to_pylist(), strict=True)) == {
        ("prompt0", 0): failed_too,
        ("prompt1", 0): False,
        ("prompt2", 0): False,
    }
    assert index["error"].null_count == 2


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


def test_the_description_is_written_once(tmp_path: Path) -> None:
    store = TraceStore(tmp_path, TEACHER)
    store.folder.mkdir(parents=True)
    with pytest.raises(TraceStoreError, match=r"teacher\.json is missing: run `distill-data build`"):
        store.description()
    store.describe({"teacher_id": TEACHER, "name": "Größe"})
    store.describe({"teacher_id": "other"})
    assert store.description() == {"teacher_id": TEACHER, "name": "Größe"}


def test_a_damaged_description_is_told_and_written_again(store: TraceStore) -> None:
    file = store.folder / "teacher.json"
    whole, said = file.read_bytes(), store.description()
    for damaged in (b"", b"[]", whole[:-3], whole.replace(b"Gr", b"gr"), b"\xff" + whole):
        file.write_bytes(damaged)
        with pytest.raises(TraceStoreError, match=rf"{file} is damaged \(.*\): restore it from a backup"):
            store.description()
        store.describe(said)
        assert file.read_bytes() == whole


def fail(number: int) -> Any:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return failing


def test_a_failed_sync_leaves_nothing_half_written(store: TraceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store.commit([make_trace(1)])
    monkeypatch.setattr(os, "fsync", fail(errno.ENOSPC))
    with pytest.raises(TraceStoreError, match=r"No space left on device: free space .* everything committed is kept"):
        store.commit([make_trace(2)])
    (store.folder / "teacher.json").unlink()
    with pytest.raises(TraceStoreError, match=r"cannot write .*teacher\.json: No space left"):
        store.describe({})
    monkeypatch.undo()
    assert names(store) == [kept.name]
    assert keys(store.index()) == [("prompt1", 0)]


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    store = TraceStore(tmp_path / "root", TEACHER)
    assert len(store.index()) == 0
    for write in (lambda: store.describe({}), lambda: store.commit([make_trace(1)])):
        with pytest.raises(TraceStoreError, match=rf"cannot write {store.folder}/.*: Not a directory: its folder"):
            write()


def test_a_root_that_vanished_is_told_and_not_made_again(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    store = new_store(root)
    store.commit([make_trace(1)])
    shutil.rmtree(root)
    with pytest.raises(
        TraceStoreError, match=r"part-.*: No such file or directory: its folder is gone: mount its disk"
    ):
        store.commit([make_trace(2)])
    with pytest.raises(TraceStoreError, match=r"teacher\.json: No such file or directory: its folder is gone"):
        store.describe({})
    assert list(tmp_path.iterdir()) == []
    root.mkdir()  # where a disk was mounted, an empty folder is left
    with pytest.raises(TraceStoreError, match=r"part-.*: No such file or directory: its folder is gone"):
        store.commit([make_trace(2)])
    assert list(root.iterdir()) == []


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
