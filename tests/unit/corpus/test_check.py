from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.manifest import write_manifest
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.records import SOFT_LABEL_FIELDS

MakeJob = Callable[..., Assembly]
TRAIN = "train-00000-of-00001.parquet"
HELD_OUT = "validation-00000-of-00001.parquet"


@pytest.fixture
def corpus(make_job: MakeJob, tmp_path: Path) -> Corpus:
    assemble(make_job(validation={"fraction": 0.3}), lambda progress: None)
    return open_corpus("sums", tmp_path)


def rewrite(corpus: Corpus, path: str, table: pa.Table) -> Corpus:
    """Replace a file and tell the manifest, as a faulty writer would."""
    file = corpus.path / path
    pq.write_table(table, file)
    data = file.read_bytes()
    change = {"rows": len(table), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files = [facts.model_copy(update=change) if facts.path == path else facts for facts in corpus.manifest.files]
    write_manifest(corpus.path, corpus.manifest.model_copy(update={"files": files}))
    return open_corpus("sums", corpus.path.parents[2])


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("family", ["traces", "soft_labels"])
def test_a_flipped_byte_is_found(corpus: Corpus, family: str, position: float) -> None:
    file = corpus.path / family / TRAIN
    data = bytearray(file.read_bytes())
    data[int(len(data) * position)] ^= 1
    file.write_bytes(data)
    (problem,) = verify_corpus(corpus)
    assert problem.startswith(f"{family}/{TRAIN}: its bytes changed")


def test_a_cut_missing_or_extra_file_is_found(corpus: Corpus) -> None:
    cut = corpus.path / "traces" / TRAIN
    cut.write_bytes(cut.read_bytes()[:-10])
    (corpus.path / "soft_labels" / HELD_OUT).unlink()
    extra = corpus.path / "traces" / "train-00001-of-00001.parquet"
    extra.write_bytes(b"PAR1")
    assert [problem.split(", the")[0].split(" has")[0] for problem in verify_corpus(corpus)] == [
        f"soft_labels/{HELD_OUT}: is missing",
        f"traces/{TRAIN}:",
        "traces/train-00001-of-00001.parquet: is not in the manifest",
    ]


def test_a_folder_or_a_link_to_nothing_in_a_files_place_is_found(corpus: Corpus) -> None:
    for name, kind in ((TRAIN, "folder"), (HELD_OUT, "link")):
        file = corpus.path / "traces" / name
        file.unlink()
        file.mkdir() if kind == "folder" else file.symlink_to("nowhere")
    assert [problem for problem in verify_corpus(corpus) if problem.startswith("traces/")] == [
        f"traces/{TRAIN}: cannot be read: Is a directory",
        f"traces/{HELD_OUT}: cannot be read: No such file or directory",
    ]


def test_a_file_of_an_unknown_split_is_found(corpus: Corpus) -> None:
    file = corpus.path / "traces" / TRAIN.replace("train", "test")
    file.write_bytes((corpus.path / "traces" / TRAIN).read_bytes())
    (facts,) = (facts for facts in corpus.manifest.files if facts.path == f"traces/{TRAIN}")
    more = [*corpus.manifest.files, facts.model_copy(update={"path": f"traces/{file.name}"})]
    write_manifest(corpus.path, corpus.manifest.model_copy(update={"files": more}))
    assert verify_corpus(open_corpus("sums", corpus.path.parents[2])) == [
        f"manifest.json: traces/test has {facts.rows} rows in its files, counts say 0"
    ]


def test_shifted_rows_are_found(corpus: Corpus) -> None:
    labels = corpus.table("soft_labels")
    order = np.roll(np.arange(len(labels)), 1)
    problems = verify_corpus(rewrite(corpus, f"soft_labels/{TRAIN}", labels.take(order)))
    assert f"soft_labels/{TRAIN}: row 0: trace_id differs from the traces file" in problems


def test_lists_of_other_lengths_are_found(corpus: Corpus) -> None:
    labels = corpus.table("soft_labels")
    rows = labels.to_pylist()
    rows[4]["support_ids"].pop()
    rows[7]["sampled_logprobs"].append(-1.0)
    broken = pa.Table.from_pylist(rows, labels.schema)
    assert verify_corpus(rewrite(corpus, f"soft_labels/{TRAIN}", broken)) == [
        f"soft_labels/{TRAIN}: row 7: sampled_logprobs is not one per completion token",
        f"soft_labels/{TRAIN}: row 4: support_counts do not add up to support_ids",
    ]


def test_a_file_that_does_not_say_that_nothing_is_null_opens_as_before(corpus: Corpus) -> None:
    labels = corpus.table("soft_labels")
    older = pa.schema([("trace_id", pa.string()), *SOFT_LABEL_FIELDS])
    changed = rewrite(corpus, f"soft_labels/{TRAIN}", labels.cast(older))
    assert verify_corpus(changed) == []
    assert changed.table("soft_labels").schema.field("support_ids").nullable
    pieces = [changed.reader("train")[0], next(iter(changed.stream("train")))]
    assert all(piece["support_counts"].sum() == len(piece["support_ids"]) for piece in pieces)
    assert changed.mapped("soft_labels", "train").equals(labels)


def test_other_columns_and_row_counts_are_found(corpus: Corpus) -> None:
    rejected = corpus.table("rejected")
    changed = rewrite(corpus, "rejected/rejected-00000-of-00001.parquet", rejected.drop(["answer"]).slice(1))
    assert verify_corpus(changed) == [
        "rejected/rejected-00000-of-00001.parquet: its columns are not those of rejected in this schema version",
        f"manifest.json: rejected/rejected has {len(rejected) - 1} rows in its files, counts say {len(rejected)}",
    ]


def test_a_prompt_on_both_sides_and_a_repeated_trace_are_found(corpus: Corpus) -> None:
    held_out, train = corpus.table("traces", "validation"), corpus.table("traces")
    mixed = pa.concat_tables([train.slice(0, 1), held_out.slice(1)])
    labels, other = corpus.table("soft_labels"), corpus.table("soft_labels", "validation")
    corpus = rewrite(corpus, f"traces/{HELD_OUT}", mixed)
    corpus = rewrite(corpus, f"soft_labels/{HELD_OUT}", pa.concat_tables([labels.slice(0, 1), other.slice(1)]))
    first = train.slice(0, 1).to_pylist()[0]
    assert verify_corpus(corpus) == [
        f"traces/: 1 trace ids are there twice, for example {first['trace_id']}",
        f"traces/validation-*: prompt {first['prompt_id']} is in train too",
    ]


@pytest.mark.parametrize("name", ["sampled_logprobs", "support_logprobs"])
def test_log_probabilities_that_cannot_be_are_found(corpus: Corpus, name: str) -> None:
    labels = corpus.table("soft_labels")
    rows = labels.to_pylist()
    rows[1][name][0] = float("nan")
    problems = verify_corpus(rewrite(corpus, f"soft_labels/{TRAIN}", pa.Table.from_pylist(rows, labels.schema)))
    assert len(problems) == 1 and f"row 1: {name} are not all finite" in problems[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("support_ids", 1_000_000), ("support_ids", -1), ("completion_token_ids", 400), ("prompt_token_ids", -5),
        ("support_logprobs", 5.0), ("sampled_logprobs", 0.1),
    ],
)  # fmt: skip
def test_ids_and_probabilities_that_cannot_be_are_found(corpus: Corpus, name: str, value: float) -> None:
    labels = corpus.table("soft_labels")
    rows = labels.to_pylist()
    rows[1][name][0] = value
    problems = verify_corpus(rewrite(corpus, f"soft_labels/{TRAIN}", pa.Table.from_pylist(rows, labels.schema)))
    assert len(problems) == 1 and f"row 1: {name} are not all" in problems[0]


@pytest.mark.parametrize("name", [name for name, _ in SOFT_LABEL_FIELDS])
def test_nulls_are_found(corpus: Corpus, name: str) -> None:
    labels = corpus.table("soft_labels")
    rows = labels.to_pylist()
    rows[1][name][0] = None
    older = pa.schema([("trace_id", pa.string()), *SOFT_LABEL_FIELDS])  # which does not say that there are none
    problems = verify_corpus(rewrite(corpus, f"soft_labels/{TRAIN}", pa.Table.from_pylist(rows, older)))
    assert len(problems) == 1 and f"{name} has nulls in rows 0 to" in problems[0]
