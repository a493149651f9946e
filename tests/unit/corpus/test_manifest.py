from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.manifest import MANIFEST_NAME, Manifest, read_manifest
from distill_data.corpus.provenance import git_revision, package_versions
from distill_data.errors import CorpusError
from distill_data.identity import sealed, unsealed

MakeJob = Callable[..., Assembly]


@pytest.fixture
def manifest(make_job: MakeJob) -> Manifest:
    return assemble(make_job(), lambda progress: None)


def test_a_manifest_says_what_made_the_version(make_job: MakeJob, manifest: Manifest, tmp_path: Path) -> None:
    job = make_job()
    assert read_manifest(tmp_path / "corpora" / "sums" / "v1") == manifest
    assert (manifest.digest, manifest.teacher_id, manifest.teacher) == (job.digest, job.teacher_id, job.teacher)
    assert manifest.config == job.config.model_dump(mode="json", exclude={"root"})  # a path of this machine
    assert manifest.prompts.digest == job.prompts.digest
    assert manifest.prompts.sources == {"sums": {"sha256": "5a"}}
    assert manifest.tokenizer["vocab_size"] == 400
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest.created_at)


def change(folder: Path, **changes: object) -> Path:
    """Write a manifest that says something else and is not damaged."""
    file = folder / MANIFEST_NAME
    file.write_text(json.dumps(sealed({**unsealed(json.loads(file.read_text())), **changes})))
    return folder


def test_a_newer_schema_asks_for_an_upgrade(manifest: Manifest, tmp_path: Path) -> None:
    folder = change(tmp_path / "corpora" / "sums" / "v1", schema_version=2, something_new=True)
    with pytest.raises(CorpusError, match=r"schema version 2 .*upgrade distill-data"):
        read_manifest(folder)


def test_a_damaged_manifest_is_named(manifest: Manifest, tmp_path: Path) -> None:
    folder = change(tmp_path / "corpora" / "sums" / "v1", version="x")
    with pytest.raises(CorpusError, match=r"manifest.json is damaged \(.*version"):
        read_manifest(folder)
    (folder / MANIFEST_NAME).write_text("{")
    with pytest.raises(CorpusError, match="is damaged"):
        read_manifest(folder)
    (folder / MANIFEST_NAME).unlink()
    with pytest.raises(CorpusError, match="is no corpus version"):
        read_manifest(folder)


@pytest.mark.parametrize("bit", [0, 5])
def test_no_flipped_byte_passes_for_what_was_written(manifest: Manifest, tmp_path: Path, bit: int) -> None:
    folder = tmp_path / "corpora" / "sums" / "v1"
    whole = (folder / MANIFEST_NAME).read_bytes()
    found = 0
    for at in np.random.default_rng(bit).permutation(len(whole))[:100]:
        data = bytearray(whole)
        data[at] ^= 1 << bit
        (folder / MANIFEST_NAME).write_bytes(data)
        try:
            assert read_manifest(folder) == manifest  # white space, say
        except CorpusError as error:
            assert str(folder / MANIFEST_NAME) in str(error)
            found += 1
    assert found > 50


def test_a_manifest_from_before_there_were_seals_is_read(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "corpora" / "sums" / "v1"
    file = folder / MANIFEST_NAME
    file.write_text(json.dumps(unsealed(json.loads(file.read_text()))))
    assert read_manifest(folder) == manifest


@pytest.mark.parametrize("path", ["/etc/passwd", "../v2/x.parquet", "traces/../../x", "traces//x", "x.parquet"])
def test_a_file_outside_the_version_is_refused(path: str, manifest: Manifest, tmp_path: Path) -> None:
    files = [file.model_dump() for file in manifest.files]
    folder = change(tmp_path / "corpora" / "sums" / "v1", files=[files[0] | {"path": path}, *files[1:]])
    with pytest.raises(CorpusError) as caught:
        read_manifest(folder)
    assert f"file path {path!r} is not of the form FAMILY/FILE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_packages_name_what_is_installed() -> None:
    import pyarrow

    assert package_versions()["pyarrow"] == pyarrow.__version__


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_revision_is_that_of_the_checkout_that_tracks_the_code(tmp_path: Path) -> None:
    assert git_revision(tmp_path) is None
    git(tmp_path, "init", "-q")
    for name in ("tracked", "installed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "code.py").write_text("1")
    git(tmp_path, "add", "tracked")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_revision(tmp_path / "tracked") == commit
    assert git_revision(tmp_path / "installed") is None
    (tmp_path / "tracked" / "code.py").write_text("2")
    assert git_revision(tmp_path / "tracked") == f"{commit}-dirty"
