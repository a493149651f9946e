"""Publishing to a hub through its real client, undisturbed."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from distill_data.corpus.assemble import assemble
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.manifest import read_manifest
from distill_data.corpus.read import Corpus
from distill_data.corpus.tagging import tag_version
from distill_data.publish import publish_version
from distill_data.publish_config import Publish
from tests.hub.conftest import MakeJob, Run, make_prompts
from tests.hub.server import File, Hub, Repo

LOAD = """
import sys
from datasets import load_dataset
traces = load_dataset("org/sums", split="train")
pinned = load_dataset("org/sums", revision="v1", split="train")
labels = load_dataset("org/sums", "soft_labels", split="train")
streamed = list(load_dataset("org/sums", "soft_labels", split="train", streaming=True))
rejected = load_dataset("org/sums", "rejected", split="rejected")
assert traces["trace_id"][:] == pinned["trace_id"][:] == labels["trace_id"][:]
assert [row["trace_id"] for row in streamed] == traces["trace_id"][:]
assert streamed[0]["support_ids"] == labels[0]["support_ids"]
print(len(traces), len(rejected))
"""

LOAD_BOTH = """
from datasets import load_dataset
before, now = (load_dataset("org/sums", revision=tag, split="train") for tag in ("v1", "v2"))
head = load_dataset("org/sums", split="train")
print(len(before), "v2" if head["trace_id"][:] == now["trace_id"][:] != before["trace_id"][:] else "?")
"""


def test_a_published_version_loads(publish: Run, run: Run, hub: Hub, corpus: Corpus) -> None:
    done = publish("sums@v1", "--json")
    assert done.returncode == 0, done.stderr
    repo = hub.repos["org/sums"]
    report = json.loads(done.stdout)
    assert report["delivery"]["revision"] == repo.head == repo.tags["v1"]
    assert len(repo.commits) == 2  # the hub's own first one, and one
    loaded = run("-c", LOAD)
    assert loaded.returncode == 0, loaded.stderr
    counts = corpus.manifest.counts
    assert loaded.stdout.split() == [str(counts["train"]), str(counts["rejected"])]


def test_what_is_there_is_a_whole_version_without_paths(publish: Run, hub: Hub, corpus: Corpus, tmp_path: Path) -> None:
    assert publish().returncode == 0
    for path, file in hub.repos["org/sums"].commits[hub.repos["org/sums"].head].items():
        target = tmp_path / "copy" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        if not path.endswith(".parquet"):
            assert str(tmp_path).encode() not in file.content and b"/somewhere" not in file.content
    copy = Corpus(tmp_path / "copy", read_manifest(tmp_path / "copy"))
    assert verify_corpus(copy) == []
    assert copy.manifest.digest == corpus.manifest.digest
    assert 'load_dataset("org/sums", "traces"' in (tmp_path / "copy/README.md").read_text()


def test_publishing_again_sends_nothing(publish: Run, hub: Hub, corpus: Corpus) -> None:
    assert publish().returncode == 0
    sent, commits = hub.uploaded, len(hub.repos["org/sums"].commits)
    again = publish("sums@v1", "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["delivery"]["already_there"]
    assert (hub.uploaded, len(hub.repos["org/sums"].commits)) == (sent, commits)


def test_the_next_version_replaces_the_files_of_the_one_before(
    publish: Run, run: Run, hub: Hub, corpus: Corpus, make_job: MakeJob
) -> None:
    assert publish().returncode == 0
    assemble(make_job(make_prompts(12), storage={"rows_per_file": 10}), lambda progress: None)
    assert publish("sums@v2").returncode == 0
    repo = hub.repos["org/sums"]
    assert repo.tags == {"v1": list(repo.commits)[1], "v2": repo.head} and len(repo.commits) == 3
    assert "traces/train-00000-of-00001.parquet" in repo.commits[repo.tags["v1"]]
    assert "traces/train-00000-of-00001.parquet" not in repo.commits[repo.head]
    loaded = run("-c", LOAD_BOTH)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == [str(corpus.manifest.counts["train"]), "v2"]


def test_an_older_version_does_not_take_the_head_back(
    publish: Run, hub: Hub, corpus: Corpus, make_job: MakeJob
) -> None:
    assemble(make_job(make_prompts(12)), lambda progress: None)
    assert publish("sums@v2").returncode == 0
    refused = publish("sums@v1")
    assert refused.returncode == 1 and "publish versions in their order" in refused.stderr
    assert list(hub.repos["org/sums"].tags) == ["v2"]


def test_another_version_of_the_same_number_is_refused(
    publish: Run, hub: Hub, corpus: Corpus, make_job: MakeJob, tmp_path: Path
) -> None:
    assert publish().returncode == 0
    other = tmp_path / "other"
    assemble(make_job(make_prompts(5), root=other), lambda progress: None)
    refused = publish("sums@v1", "--root", str(other))
    assert refused.returncode == 1 and "a published version never changes" in refused.stderr
    assert refused.stderr.count("\n") == 1 and len(hub.repos["org/sums"].commits) == 2


def test_a_damaged_version_is_not_published(publish: Run, hub: Hub, corpus: Corpus) -> None:
    file = corpus.path / corpus.manifest.files[0].path
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    refused = publish()
    assert refused.returncode == 1 and "is not whole and is not published" in refused.stderr
    assert not hub.repos and all(request.startswith("GET ") for request in hub.requests)
    assert "is not whole" in publish("sums@v1", "--dry-run").stderr


def test_what_is_there_is_not_read_again(publish: Run, hub: Hub, corpus: Corpus) -> None:
    assert publish().returncode == 0
    (corpus.path / corpus.manifest.files[0].path).unlink()
    again = publish("sums@v1", "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["delivery"]["already_there"]


def test_a_name_alone_is_the_version_that_is_promoted(
    publish: Run, hub: Hub, corpus: Corpus, make_job: MakeJob, tmp_path: Path
) -> None:
    refused = publish("sums")
    assert refused.returncode == 2 and "no version of sums is promoted" in refused.stderr and not hub.requests
    tag_version(str(tmp_path), "sums@v1", "stable")
    assemble(make_job(make_prompts(5)), lambda progress: None)
    assert publish("sums").returncode == 0 and hub.repos["org/sums"].tags.keys() == {"v1"}
    named = publish("sums@v2")
    assert named.returncode == 0 and "sums@v2 was never promoted; stable is v1" in named.stderr


def test_a_licence_that_came_later_is_on_the_card(corpus: Corpus, tmp_path: Path) -> None:
    to = Publish(to="hf://org/sums", license="cc-by-4.0")
    card = publish_version(tmp_path, "sums@v1", to, dry_run=True).card
    assert card is not None and yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"


def test_a_dry_run_shows_files_and_card_and_asks_nobody(publish: Run, hub: Hub, corpus: Corpus) -> None:
    shown = publish("sums@v1", "--dry-run")
    assert shown.returncode == 0 and not hub.requests
    assert "manifest.json" in shown.stdout and "config_name: soft_labels" in shown.stdout


def test_private_repositories_are_made_and_public_ones_not_taken(publish: Run, hub: Hub, corpus: Corpus) -> None:
    assert publish("sums@v1", "--private").returncode == 0 and hub.repos["org/sums"].private
    hub.repos["org/open"] = Repo(private=False)
    hub.repos["org/open"].add({})
    refused = publish("sums@v1", "--private", to="hf://org/open")
    assert refused.returncode == 1 and "is public and private was asked for" in refused.stderr


def test_somebody_elses_data_is_left_alone(publish: Run, hub: Hub, corpus: Corpus) -> None:
    hub.repos["org/sums"] = Repo(private=False)
    hub.repos["org/sums"].add({"traces/mine.parquet": File(b"PAR1", lfs=False)})
    refused = publish()
    assert refused.returncode == 1 and "traces/mine.parquet" in refused.stderr
    assert len(hub.repos["org/sums"].commits) == 1
