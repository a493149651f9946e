from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.corpus.manifest import FileFacts
from distill_data.corpus.read import Corpus
from distill_data.corpus.write import file_facts
from distill_data.errors import CorpusError, InputError
from distill_data.export import FORMATS, export_corpus, export_folder

from .conftest import replace_labels


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_says_what_it_is(corpus: Corpus, tmp_path: Path, format: str) -> None:
    report = export_corpus(corpus, format, tmp_path / "new" / "out")
    folder = tmp_path / "new" / "out"
    suffix = "parquet" if format in ("axolotl", "distillkit") else "jsonl"
    files = {"README.md", "export.json", f"train.{suffix}", f"validation.{suffix}"}
    assert {path.name for path in folder.iterdir()} == files
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert report.rows == {split: corpus.manifest.counts[split] for split in corpus.splits}
    assert report.bytes == sum((folder / name).stat().st_size for name in files)
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    assert facts["digest"] == corpus.manifest.digest
    assert (facts["corpus"], facts["format"], facts["rows"]) == ("sums@v1", format, report.rows)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert corpus.manifest.digest in readme
    assert report.lost and all(f"- {what}" in readme for what in report.lost)
    assert "{{" not in readme


def test_the_same_version_gives_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    for format in FORMATS:
        for name in ("a", "b"):
            export_corpus(corpus, format, tmp_path / name / format)
        for file in (tmp_path / "a" / format).iterdir():
            assert file.read_bytes() == (tmp_path / "b" / format / file.name).read_bytes()


@pytest.mark.parametrize("format", ["axolotl", "distillkit", "jsonl"])
def test_streamed_in_pieces_the_rows_are_the_same(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    export_corpus(corpus, format, tmp_path / "whole")
    monkeypatch.setattr("distill_data.export.distributions._BATCH_ENTRIES", 1)
    monkeypatch.setattr("distill_data.export.distributions._MEASURED_ROWS", 2)
    monkeypatch.setattr("distill_data.export.text._BATCH_ROWS", 3)
    export_corpus(corpus, format, tmp_path / "pieces")
    for file in (tmp_path / "whole").glob("*.jsonl"):
        assert (tmp_path / "pieces" / file.name).read_bytes() == file.read_bytes()
    for file in (tmp_path / "whole").glob("*.parquet"):
        pieces = pq.ParquetFile(tmp_path / "pieces" / file.name)
        assert pieces.metadata.num_row_groups == pieces.metadata.num_rows > 1
        assert pieces.read().equals(pq.read_table(file))


def test_an_unknown_format_is_told_which_there_are(corpus: Corpus, tmp_path: Path) -> None:
    names = "axolotl, distillkit, trl, trl-prompt-completion, ms-swift, jsonl"
    with pytest.raises(InputError, match=rf"'llama' is no export format: use one of {names}$"):
        export_corpus(corpus, "llama", tmp_path / "out")


def test_an_unknown_split_is_told_which_there_are(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sums@v1 has no split 'test': use train or validation"):
        export_corpus(corpus, "jsonl", tmp_path / "out", "test")


def test_a_folder_with_something_in_it_is_left_alone(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("out", "file"):
        with pytest.raises(InputError, match=rf"{name} exists already: give another --out, or remove it"):
            export_corpus(corpus, "jsonl", tmp_path / name)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_empty_folder_is_filled(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_corpus(corpus, "jsonl", tmp_path / "out")
    assert (tmp_path / "out" / "train.jsonl").is_file()


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_file_leaves_nothing_behind(corpus: Corpus, tmp_path: Path, format: str) -> None:
    for family in ("traces", "soft_labels"):
        file = corpus.files(family, "validation")[0]
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CorpusError, match=r"validation-00000-of-00001\.parquet cannot be read"):
        export_corpus(corpus, format, tmp_path / "exports" / "out")
    assert not list(tmp_path.glob("exports/*"))


def test_a_folder_that_cannot_be_written_is_one_line(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusError, match=r"cannot write .*out \(.*\): free space or give another --out"):
        export_corpus(corpus, "jsonl", tmp_path / "file" / "out")


@pytest.mark.parametrize("format", ["axolotl", "distillkit"])
def test_traces_without_soft_labels_are_refused_and_not_skipped(corpus: Corpus, tmp_path: Path, format: str) -> None:
    file = corpus.files("soft_labels", "validation")[0]
    batch = pq.read_table(file).combine_chunks().to_batches()[0]
    bare = replace_labels(batch, 1, sampled_logprobs=[], support_counts=[], support_ids=[], support_logprobs=[])
    pq.write_table(pa.Table.from_batches([bare]), file)
    files = [file_facts(corpus.path, file) if facts.path.endswith(_name(file)) else facts for facts in _files(corpus)]
    changed = Corpus(corpus.path, corpus.manifest.model_copy(update={"files": files}))
    trace = batch.column("trace_id")[1].as_py()
    with pytest.raises(CorpusError, match=rf"trace {trace} has no soft labels for each of its \d+ .*: export a format"):
        export_corpus(changed, format, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export_corpus(changed, "jsonl", tmp_path / "out").rows["validation"] == len(batch)


def test_where_an_export_goes_by_itself(corpus: Corpus) -> None:
    assert export_folder("data", corpus, "ms-swift") == Path("data/exports/sums-v1-ms-swift")


def _files(corpus: Corpus) -> list[FileFacts]:
    return corpus.manifest.files


def _name(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"
