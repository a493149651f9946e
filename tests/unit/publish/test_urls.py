"""Publishing to files and to an S3 server: files first, the manifest last, and only where none is."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.manifest import read_manifest
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import InputError, PublishError
from distill_data.publish import publish_version, urls
from tests.unit.corpus.conftest import make_job, make_prompts

__all__ = ["make_job"]
MakeJob = Callable[..., Assembly]


@pytest.fixture
def corpus(make_job: MakeJob, tmp_path: Path) -> Corpus:
    assemble(make_job(judge={"verifier": "exact"}, keep={"passed_only": True}), lambda progress: None)
    return open_corpus("sums@v1", tmp_path)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket of a real S3 server on loopback."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="corpora")
    yield f"s3://corpora/{tmp_path.name}"  # the servers of one process share what they keep
    server.stop()


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/out/sums" if request.param == "file" else request.getfixturevalue("bucket")


def fetch(place: str, folder: Path) -> Corpus:
    """A version as somebody else gets it."""
    from fsspec.core import url_to_fs

    store, path = url_to_fs(f"{place}/v1", skip_instance_cache=True)
    folder.mkdir()
    store.get(f"{path}/", f"{folder}/", recursive=True)
    return Corpus(folder, read_manifest(folder))


def test_a_published_version_is_whole(corpus: Corpus, place: str, tmp_path: Path) -> None:
    report = publish_version(tmp_path, "sums@v1", place)
    assert report.bytes_sent == report.bytes and not report.already_there
    copy = fetch(place, tmp_path / "copy")
    assert verify_corpus(copy) == [] and copy.manifest.digest == corpus.manifest.digest
    assert str(tmp_path) not in (copy.path / "manifest.json").read_text()
    again = publish_version(tmp_path, "sums@v1", place)
    assert again.already_there and again.bytes_sent == 0


def test_another_version_of_that_number_is_refused(
    corpus: Corpus, place: str, tmp_path: Path, make_job: MakeJob
) -> None:
    publish_version(tmp_path, "sums@v1", place)
    assemble(make_job(make_prompts(5), root=tmp_path / "other"), lambda progress: None)
    with pytest.raises(PublishError, match="a published version never changes"):
        publish_version(tmp_path / "other", "sums@v1", place)
    assert fetch(place, tmp_path / "copy").manifest.digest == corpus.manifest.digest


def test_two_versions_of_one_number_do_not_share_a_folder(
    corpus: Corpus, place: str, tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    assemble(make_job(make_prompts(5), root=tmp_path / "other"), lambda progress: None)
    real, refused = urls._put, []

    def put(store: Any, path: str, file: Any) -> None:
        if not refused:  # the other one comes while this one's files are on their way
            refused.append(1)
            with pytest.raises(PublishError, match=r"being filled with another sums@v1 .*remove .*publishing.json"):
                publish_version(tmp_path / "other", "sums@v1", place)
        real(store, path, file)

    monkeypatch.setattr(urls, "_put", put)
    publish_version(tmp_path, "sums@v1", place)
    copy = fetch(place, tmp_path / "copy")
    assert refused and verify_corpus(copy) == [] and copy.manifest.digest == corpus.manifest.digest
    assert not (copy.path / "publishing.json").exists()


@pytest.mark.parametrize("step", ["_is_there", "_claim", "_put", "_remove_others", "_create", "_require_all"])
def test_a_store_that_is_busy_is_asked_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real, failed = getattr(urls, step), []

    def busy(*arguments: Any) -> Any:
        if not failed:
            failed.append(1)
            raise OSError(errno.EBUSY, "slow down")
        return real(*arguments)

    monkeypatch.setattr(urls, step, busy)
    monkeypatch.setattr("distill_data.publish.retry.FIRST_WAIT", 0.01)
    lines: list[str] = []
    publish_version(tmp_path, "sums@v1", f"file://{tmp_path}/out/sums", say=lines.append)
    assert failed and any("trying again" in line for line in lines)
    assert verify_corpus(fetch(f"file://{tmp_path}/out/sums", tmp_path / "copy")) == []


def test_a_failure_leaves_no_version_and_what_was_sent_is_not_sent_again(
    corpus: Corpus, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sent = urls._put, []

    def put(store: Any, path: str, file: Any) -> None:
        if len(sent) == 2:
            raise PermissionError(13, "denied")
        sent.append(file)
        real(store, path, file)

    monkeypatch.setattr(urls, "_put", put)
    with pytest.raises(PublishError, match="denied"):
        publish_version(tmp_path, "sums@v1", place)
    store, path = urls._open(place)
    assert store.find(path) and not store.exists(f"{path}/v1/manifest.json")
    monkeypatch.setattr(urls, "_put", real)
    report = publish_version(tmp_path, "sums@v1", place)
    assert report.bytes_sent == report.bytes - sum(file.bytes for file in sent)


def test_a_file_that_reads_back_otherwise_stops_it(
    corpus: Corpus, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(store: Any, path: str, file: Any) -> None:
        store.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        store.pipe_file(path, b"x" * file.bytes)

    monkeypatch.setattr(urls, "_put", put)
    with pytest.raises(PublishError, match="does not read back as it was sent"):
        publish_version(tmp_path, "sums@v1", place)


def test_files_of_an_unfinished_publish_are_removed(corpus: Corpus, place: str, tmp_path: Path) -> None:
    store, path = urls._open(place)
    store.makedirs(f"{path}/v1/traces", exist_ok=True)
    store.pipe_file(f"{path}/v1/traces/train-00001-of-00002.parquet", b"old")
    publish_version(tmp_path, "sums@v1", place)
    assert verify_corpus(fetch(place, tmp_path / "copy")) == []


def _publish(root: str, url: str, results: Any) -> None:
    results.put(publish_version(root, "sums@v1", url).already_there)


def test_of_two_at_once_one_writes_the_manifest(corpus: Corpus, place: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    both = [context.Process(target=_publish, args=(str(tmp_path), place, results)) for _ in range(2)]
    for process in both:
        process.start()
    found = [results.get(timeout=120) for _ in both]
    for process in both:
        process.join()
    assert sorted(found) == [False, True]
    assert verify_corpus(fetch(place, tmp_path / "copy")) == []


def test_a_store_that_is_not_known_is_one_line(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="nothing here writes to"):
        publish_version(tmp_path, "sums@v1", "nowhere://x/y")
    with pytest.raises(InputError, match="no URL"):
        publish_version(tmp_path, "sums@v1", "out")


def test_a_folder_that_cannot_be_written_is_one_line(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PublishError, match="cannot be published to") as caught:
        publish_version(tmp_path, "sums@v1", f"file://{tmp_path}/file")
    assert os.linesep not in str(caught.value)
