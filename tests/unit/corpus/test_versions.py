from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.manifest import MANIFEST_NAME
from distill_data.corpus.read import open_corpus
from distill_data.corpus.versions import (
    find_version,
    list_corpora,
    list_versions,
    next_version,
    parse_reference,
    version_with_digest,
)
from distill_data.errors import CorpusError, InputError

MakeJob = Callable[..., Assembly]


def make_versions(root: Path, name: str, *numbers: int) -> None:
    for number in numbers:
        folder = root / "corpora" / name / f"v{number}"
        folder.mkdir(parents=True)
        (folder / MANIFEST_NAME).write_text("{}")


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    make_versions(tmp_path, "a", 9, 10, 2)
    assert list_versions(tmp_path, "a") == [2, 9, 10]
    assert find_version(tmp_path, "a").name == "v10"
    assert find_version(tmp_path, "a@v9").name == "v9"


def test_only_a_folder_with_a_manifest_is_a_version(tmp_path: Path) -> None:
    make_versions(tmp_path, "a", 1)
    for name in ("v2", ".staging-0123-9", "v03", "vx"):
        (tmp_path / "corpora" / "a" / name).mkdir()
    (tmp_path / "corpora" / "b" / "v1").mkdir(parents=True)
    assert list_versions(tmp_path, "a") == [1]
    assert list_corpora(tmp_path) == ["a"]
    assert next_version(tmp_path / "corpora" / "a") == 3  # v2 is not overwritten


def test_nothing_there_is_an_empty_list(tmp_path: Path) -> None:
    assert list_corpora(tmp_path / "no") == []
    assert list_versions(tmp_path, "no") == []
    assert version_with_digest(tmp_path, "no", "d") is None


def test_references() -> None:
    assert parse_reference("a.b-c") == ("a.b-c", None)
    assert parse_reference("a@v12") == ("a", 12)


@pytest.mark.parametrize("reference", ["", "a@", "a@1", "a@v0", "a@v01", "a@v1@v2", "../a", ".a", "a/b", "a@v1\n"])
def test_a_bad_reference_is_refused(reference: str) -> None:
    with pytest.raises(InputError, match="is no corpus reference: write NAME, NAME@vN or NAME@TAG"):
        parse_reference(reference)


def test_what_is_missing_lists_what_is_there(tmp_path: Path) -> None:
    make_versions(tmp_path, "a", 1, 3)
    make_versions(tmp_path, "b", 1)
    with pytest.raises(CorpusError, match=r"a@v2 does not exist.*use one of a@v1, a@v3"):
        find_version(tmp_path, "a@v2")
    with pytest.raises(CorpusError, match=r"corpus 'c' does not exist.*corpora there: a, b"):
        find_version(tmp_path, "c")


def test_the_latest_version_with_a_digest_is_found(make_job: MakeJob, tmp_path: Path) -> None:
    jobs = [make_job(), make_job(filters={"truncated": False})]
    for job in jobs:
        assemble(job, lambda progress: None)
    assert [version_with_digest(tmp_path, "sums", job.digest) for job in jobs] == [1, 2]
    assert version_with_digest(tmp_path, "sums", "0" * 64) is None


def test_a_damaged_manifest_blocks_no_build(make_job: MakeJob, tmp_path: Path) -> None:
    first, second = make_job(), make_job(filters={"truncated": False})
    assemble(first, lambda progress: None)
    make_versions(tmp_path, "sums", 2)
    assert version_with_digest(tmp_path, "sums", first.digest) == 1
    assert assemble(second, lambda progress: None).version == 3
    with pytest.raises(CorpusError, match="is damaged"):
        open_corpus("sums@v2", tmp_path)
