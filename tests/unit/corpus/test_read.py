from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import CorpusError
from distill_data.records import SOFT_LABELS_SCHEMA, TRACES_SCHEMA

MakeJob = Callable[..., Assembly]


@pytest.fixture
def corpus(make_job: MakeJob, tmp_path: Path) -> Corpus:
    assemble(make_job(storage={"rows_per_file": 10}), lambda progress: None)
    return open_corpus("sums@v1", tmp_path)


def test_the_root_comes_from_the_environment_or_is_data_here(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_DATA_ROOT", str(tmp_path))
    assert open_corpus("sums").reference == "sums@v1"
    monkeypatch.delenv("DISTILL_DATA_ROOT")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "data").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    assert open_corpus("sums").manifest == corpus.manifest


def test_plain_datasets_load_the_files(corpus: Corpus, tmp_path: Path) -> None:
    for family, schema in (("traces", TRACES_SCHEMA), ("soft_labels", SOFT_LABELS_SCHEMA)):
        loaded = datasets.load_dataset(
            "parquet",
            data_files={split: str(corpus.path / family / f"{split}-*.parquet") for split in corpus.splits},
            cache_dir=str(tmp_path / "cache"),
        )
        for split in corpus.splits:
            assert loaded[split].column_names == schema.names
            assert loaded[split].to_list() == corpus.table(family, split).to_pylist()


def test_the_card_gives_both_configs(corpus: Corpus, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    default = datasets.load_dataset(str(corpus.path), cache_dir=cache)
    labels = datasets.load_dataset(str(corpus.path), "soft_labels", cache_dir=cache)
    assert set(default) == set(labels) == {"train", "validation"}
    for split in corpus.splits:
        assert default[split].to_list() == corpus.table("traces", split).to_pylist()
        assert labels[split]["trace_id"][:] == default[split]["trace_id"][:]


def test_traces_and_soft_labels_are_aligned_datasets(corpus: Corpus) -> None:
    for split in corpus.splits:
        traces, labels = corpus.traces(split), corpus.soft_labels(split)
        assert isinstance(traces, datasets.Dataset) and len(traces) == corpus.manifest.counts[split]
        assert traces["trace_id"][:] == labels["trace_id"][:]
        assert labels.features["support_logprobs"] == datasets.List(datasets.Value("float16"))
        assert labels.to_list() == corpus.table("soft_labels", split).to_pylist()


def test_the_reader_gives_the_traces_that_fit(corpus: Corpus) -> None:
    lengths = [
        len(row["prompt_token_ids"]) + len(row["completion_token_ids"])
        for row in corpus.table("soft_labels").to_pylist()
    ]
    limit = sorted(lengths)[len(lengths) // 2]
    assert len(corpus.reader("train", max_length=limit)) == sum(length <= limit for length in lengths)


@pytest.mark.parametrize("rows", [1, 4, 10, 13, 1000])
def test_the_head_is_the_first_rows(corpus: Corpus, rows: int) -> None:
    for family in ("traces", "soft_labels"):
        assert len(corpus.files(family, "train")) > 1
        assert corpus.head(family, "train", rows).equals(corpus.table(family).slice(0, rows))


def test_the_head_reads_no_later_file(corpus: Corpus) -> None:
    corpus.files("soft_labels", "train")[1].write_bytes(b"no parquet")
    assert len(corpus.head("soft_labels", "train", 10)) == 10
    with pytest.raises(CorpusError, match="cannot be read"):
        corpus.head("soft_labels", "train", 11)


def test_an_unknown_family_or_split_is_named(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"'logits' is no file family of sums@v1: use traces, soft_labels"):
        corpus.table("logits")
    with pytest.raises(CorpusError, match=r"sums@v1 has no split 'test': use train or validation"):
        corpus.table("traces", "test")


def test_a_damaged_file_says_what_to_do(corpus: Corpus) -> None:
    corpus.files("traces", "train")[0].write_bytes(b"no parquet")
    with pytest.raises(CorpusError, match=r"traces/train-00000.*cannot be read.*corpus verify"):
        corpus.table("traces")


@pytest.mark.parametrize("family", ["traces", "soft_labels"])
def test_no_flipped_byte_is_read_as_what_was_written(corpus: Corpus, family: str) -> None:
    file = corpus.files(family, "train")[0]
    whole, head = file.read_bytes(), corpus.head(family, "train", 10)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rng = np.random.default_rng(7)
    for at in [*rng.integers(0, footer, 30), *rng.integers(footer, len(whole), 30)]:
        data = bytearray(whole)
        data[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(data)
        for look in (lambda: corpus.table(family), lambda: corpus.head(family, "train", 1)):
            with pytest.raises(CorpusError, match=rf"{file} cannot be read \(its bytes are not those that"):
                look()
    file.write_bytes(whole)
    assert corpus.head(family, "train", 10).equals(head)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [cut, folder_instead, Path.unlink])
def test_a_file_that_is_not_there_whole_is_named(corpus: Corpus, damage: Callable[[Path], None]) -> None:
    file = corpus.files("soft_labels", "train")[0]
    damage(file)
    for look in (
        lambda: corpus.table("soft_labels"),
        lambda: corpus.head("soft_labels", "train", 1),
        lambda: corpus.soft_labels(),
        lambda: corpus.reader(),
        lambda: corpus.stream(),
    ):
        with pytest.raises(CorpusError, match=rf"{file} cannot be read \(.*\): run `distill-data corpus verify`"):
            look()
    assert len(corpus.head("traces", "train", 3)) == 3


def test_files_describe_themselves_without_paths_or_times(corpus: Corpus) -> None:
    for file in corpus.manifest.files:
        facts = json.loads(pq.read_metadata(corpus.path / file.path).metadata[b"distill_data"])
        assert facts["teacher"] == "teacher-1B"  # the config says /somewhere/teacher-1B
        assert (facts["vocab_size"], facts["base"], facts["min_prob"]) == (400, "e", 0.01)
        assert facts["normalisation"] == "full_vocab"
        assert facts["sampling_temperature"] == 0.7


def test_soft_label_columns_are_split_into_byte_streams(corpus: Corpus) -> None:
    group = pq.read_metadata(corpus.files("soft_labels", "train")[0]).row_group(0)
    columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
    for name in set(SOFT_LABELS_SCHEMA.names) - {"trace_id"}:
        column = columns[f"{name}.list.element"]
        assert column.compression == "ZSTD"
        assert set(column.encodings) == {"RLE", "BYTE_STREAM_SPLIT"}  # RLE: list lengths


def test_a_mapped_table_is_the_table_and_not_in_memory(corpus: Corpus, tmp_path: Path) -> None:
    expected = corpus.table("soft_labels")
    before = pa.total_allocated_bytes()
    mapped = corpus.mapped("soft_labels", "train", tmp_path)
    assert pa.total_allocated_bytes() - before < expected.nbytes / 10
    assert mapped.equals(expected)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("distill-data-")]
    with pytest.raises(CorpusError, match=r"cannot lay out soft_labels of sums@v1 in .*nowhere: No such file.*TMPDIR"):
        corpus.mapped("soft_labels", "train", tmp_path / "nowhere")
    with pytest.raises(CorpusError, match=r"'logits' is no file family"):
        corpus.mapped("logits", "train")


def test_row_groups_are_the_rows_in_their_order(corpus: Corpus) -> None:
    groups = corpus.row_groups("soft_labels", "train")
    assert {group.path for group in groups} == set(corpus.files("soft_labels", "train"))
    columns = ["trace_id", "support_ids"]
    read = pa.Table.from_batches([batch for group in groups for batch in group.batches(columns, 3)])
    assert read.equals(corpus.table("soft_labels").select(columns))


def test_a_stream_gives_the_traces_of_its_split(corpus: Corpus) -> None:
    reader, stream = corpus.reader(), corpus.stream(seed=3)
    assert stream.traces == len(reader)

    def contents(rows: Iterable[dict[str, np.ndarray]]) -> list[str]:
        return sorted(json.dumps({name: values.tolist() for name, values in row.items()}) for row in rows)

    assert contents(stream) == contents(reader[index] for index in range(len(reader)))
