"""Publishing as it goes where hf_xet is installed: chunks to a xet store, only those that it has not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_data.corpus.assemble import assemble
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.manifest import read_manifest
from distill_data.corpus.read import Corpus
from tests.hub.conftest import TOKEN, MakeJob, Run
from tests.hub.server import Hub
from tests.hub.xet import XetStore

DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
snapshot_download("org/sums", repo_type="dataset", revision="v1", local_dir=sys.argv[1])
"""


@pytest.fixture
def environment(environment: dict[str, str], hub: Hub, tmp_path: Path) -> dict[str, str]:
    """The tests' own, with xet on."""
    hub.xet = XetStore(tmp_path / "xet-store")
    return environment | {"HF_HUB_DISABLE_XET": "0", "HF_XET_CACHE": str(tmp_path / "xet-cache")}


def test_a_version_is_published_and_downloaded_through_xet(
    publish: Run, run: Run, hub: Hub, corpus: Corpus, tmp_path: Path
) -> None:
    done = publish("sums@v1", "--json")
    assert done.returncode == 0, done.stderr
    repo = hub.repos["org/sums"]
    assert repo.tags == {"v1": repo.head} and len(repo.commits) == 2
    assert hub.uploaded == 0 and not [line for line in hub.requests if "/lfs" in line]
    sent = {path for path, file in repo.commits[repo.head].items() if file.xet is not None}
    assert sent == {file.path for file in corpus.manifest.files}

    loaded = run("-c", DOWNLOAD, str(tmp_path / "copy"))
    assert loaded.returncode == 0, loaded.stderr
    assert not [line for line in hub.requests if line.startswith("GET /datasets/") and line.endswith(".parquet")]
    assert verify_corpus(Corpus(tmp_path / "copy", read_manifest(tmp_path / "copy"))) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_a_version_of_the_same_rows_sends_next_to_nothing(
    publish: Run, hub: Hub, corpus: Corpus, make_job: MakeJob
) -> None:
    assert publish().returncode == 0
    assert hub.xet is not None
    before = hub.xet.bytes()
    same_rows: dict[str, Any] = {"judge": {"verifier": "exact"}, "keep": {"passed_only": True}}
    assemble(make_job(**same_rows, filters={"max_tokens": 60_000}), lambda progress: None)
    assert publish("sums@v2").returncode == 0
    assert list(hub.repos["org/sums"].tags) == ["v1", "v2"]
    assert hub.xet.bytes() == before


@pytest.mark.parametrize("status", [503, 429, 500])
def test_a_store_whose_tokens_fail_for_a_while_is_asked_again(
    publish: Run, hub: Hub, corpus: Corpus, status: int
) -> None:
    hub.fail("/xet-write-token/", status, times=2, Retry_After="0")
    done = publish()
    assert done.returncode == 0, done.stderr
    assert hub.repos["org/sums"].tags == {"v1": hub.repos["org/sums"].head}


def test_a_store_that_refuses_is_one_line(publish: Run, hub: Hub, corpus: Corpus) -> None:
    hub.fail("/xet-write-token/", 403, times=99)
    done = publish("sums@v1", "--json")
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert json.loads(done.stdout)["kind"] == "PublishError" and "403 Forbidden" in done.stderr
    assert "trying again" not in done.stderr
    repo = hub.repos["org/sums"]
    assert len(repo.commits) == 1 and not repo.tags
