"""What goes wrong on the way to a hub: nothing half visible, nothing sent twice, nothing secret said."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_data.corpus.assemble import assemble
from distill_data.corpus.read import Corpus
from tests.hub.conftest import TOKEN, MakeJob, Run
from tests.hub.server import File, Hub, Repo
from tests.unit.corpus.conftest import make_prompts


def lfs_bytes(corpus: Corpus) -> int:
    return sum(file.bytes for file in corpus.manifest.files)


@pytest.mark.parametrize("status", [529, 429])
@pytest.mark.parametrize("step", ["/commit/", "/tag/", "/refs", "create", "/tree/", "PUT /lfs/", "preupload", "yaml"])
def test_a_hub_that_is_busy_is_asked_again(publish: Run, hub: Hub, corpus: Corpus, step: str, status: int) -> None:
    if step != "create":
        hub.repos["org/sums"] = Repo(private=False)
        hub.repos["org/sums"].add({})
    hub.fail(step, status, Retry_After="0")
    done = publish()
    assert done.returncode == 0, done.stderr
    repo = hub.repos["org/sums"]
    assert repo.tags == {"v1": repo.head} and len(repo.commits) == 2
    assert hub.faults[0].times == 0 and hub.uploaded == lfs_bytes(corpus)


def test_retry_after_is_waited_for(publish: Run, hub: Hub, corpus: Corpus) -> None:
    hub.fail("/commit/", 429, Retry_After="3")
    started = time.monotonic()
    done = publish()
    assert done.returncode == 0 and time.monotonic() - started >= 3
    assert "the server answered 429; trying again in 3 s" in done.stderr


def test_a_commit_whose_answer_was_lost_is_found(publish: Run, hub: Hub, corpus: Corpus) -> None:
    hub.fail("/commit/", 503, after=True, Retry_After="0")
    assert publish().returncode == 0
    repo = hub.repos["org/sums"]
    assert len(repo.commits) == 2 and repo.tags == {"v1": repo.head}


def test_a_commit_in_between_is_built_upon(publish: Run, hub: Hub, corpus: Corpus) -> None:
    def somebody_else() -> None:
        repo = hub.repos["org/sums"]
        repo.add({**repo.commits[repo.head], "LICENSE": File(b"theirs", lfs=False)})

    hub.before_commit.append(somebody_else)
    done = publish()
    assert done.returncode == 0 and "was changed meanwhile" in done.stderr
    repo = hub.repos["org/sums"]
    assert len(repo.commits) == 3 and repo.commits[repo.tags["v1"]]["LICENSE"].content == b"theirs"
    assert hub.uploaded == lfs_bytes(corpus)


def test_a_connection_that_breaks_is_made_again(publish: Run, hub: Hub, corpus: Corpus) -> None:
    hub.drop_after.append(100)
    done = publish()
    assert done.returncode == 0, done.stderr
    assert hub.uploaded == lfs_bytes(corpus) and not hub.drop_after


def start_and_kill(hub: Hub, environment: dict[str, str], root: Path, when: Callable[[], bool]) -> None:
    """A publish that is killed as soon as something is so."""
    command = [sys.executable, "-m", "distill_data.cli", "publish", "sums@v1", "--to", "hf://org/sums"]
    process = subprocess.Popen([*command, "--root", str(root)], env=environment, stderr=subprocess.DEVNULL)
    while not when():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    repo = hub.repos["org/sums"]
    assert len(repo.commits) == 1 and not repo.tags  # nothing is visible
    hub.faults.clear()


def test_what_arrived_before_a_kill_is_not_sent_again(
    publish: Run, hub: Hub, corpus: Corpus, environment: dict[str, str], tmp_path: Path
) -> None:
    last = corpus.manifest.files[-1]
    hub.seconds_per_block = 0.2  # a slow link
    hub.fail(f"PUT /lfs/{last.sha256}", 503, times=99, Retry_After="60")
    start_and_kill(hub, environment, tmp_path, lambda: hub.uploaded == lfs_bytes(corpus) - last.bytes)
    assert publish().returncode == 0
    repo = hub.repos["org/sums"]
    assert hub.uploaded == lfs_bytes(corpus) and repo.tags == {"v1": repo.head} and len(repo.commits) == 2


def test_a_publish_killed_at_its_commit_sends_nothing_again(
    publish: Run, hub: Hub, corpus: Corpus, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.fail("/commit/", 503, times=99, Retry_After="60")
    start_and_kill(hub, environment, tmp_path, lambda: any("/commit/" in request for request in hub.requests))
    assert hub.uploaded == lfs_bytes(corpus)
    assert publish().returncode == 0
    repo = hub.repos["org/sums"]
    assert hub.uploaded == lfs_bytes(corpus) and repo.tags == {"v1": repo.head} and len(repo.commits) == 2


def test_a_publish_killed_before_its_tag_only_sets_it(publish: Run, hub: Hub, corpus: Corpus) -> None:
    assert publish().returncode == 0
    repo = hub.repos["org/sums"]
    head = repo.tags.pop("v1")
    assert publish().returncode == 0
    assert repo.tags == {"v1": head} and len(repo.commits) == 2


def test_a_tag_that_a_kill_left_out_is_set_before_the_next_version(
    publish: Run, hub: Hub, corpus: Corpus, make_job: MakeJob
) -> None:
    assert publish().returncode == 0
    repo = hub.repos["org/sums"]
    first = repo.tags.pop("v1")
    assemble(make_job(make_prompts(5)), lambda progress: None)
    assert publish("sums@v2").returncode == 0
    assert repo.tags == {"v1": first, "v2": repo.head} and first != repo.head


def test_files_of_others_get_no_tag_of_a_version(publish: Run, hub: Hub, corpus: Corpus, make_job: MakeJob) -> None:
    assert publish().returncode == 0
    repo = hub.repos["org/sums"]
    repo.tags.clear()
    repo.add({**repo.commits[repo.head], corpus.manifest.files[0].path: File(b"theirs", lfs=True)})
    assemble(make_job(make_prompts(5)), lambda progress: None)
    assert publish("sums@v2").returncode == 0 and repo.tags == {"v2": repo.head}


def test_a_hub_that_keeps_other_bytes_gets_no_tag(publish: Run, hub: Hub, corpus: Corpus) -> None:
    assert publish().returncode == 0
    repo = hub.repos["org/sums"]
    repo.tags.clear()
    path = corpus.manifest.files[0].path
    damaged = File(b"x" * corpus.manifest.files[0].bytes, lfs=True)
    hub.objects[corpus.manifest.files[0].sha256] = damaged.content
    repo.add({**repo.commits[repo.head], path: damaged})
    refused = publish()
    assert refused.returncode == 1 and f"does not have {path} as it was sent" in refused.stderr
    assert not repo.tags


def test_a_planted_token_is_nowhere(publish: Run, hub: Hub, corpus: Corpus, tmp_path: Path) -> None:
    hub.fail("PUT /lfs/", 500, Retry_After="0")
    hub.fail("/commit/", 403, times=99)  # its message repeats the Authorization header
    refused = publish("sums@v1", "--json")
    assert refused.returncode == 1 and refused.stderr.splitlines()[-1].startswith("error: ")
    assert json.loads(refused.stdout)["kind"] == "PublishError"
    hub.faults.clear()
    done = publish()
    assert done.returncode == 0
    for said in (refused.stdout, refused.stderr, done.stdout, done.stderr):
        assert TOKEN not in said and "planted-signature" not in said
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    remote = [file.content for tree in hub.repos["org/sums"].commits.values() for file in tree.values()]
    assert not any(TOKEN.encode() in content for content in contents + remote)


def test_a_wrong_token_is_one_line(run: Run, hub: Hub, corpus: Corpus, tmp_path: Path) -> None:
    hub.repos["org/sums"] = Repo(private=False)
    hub.repos["org/sums"].add({})
    where = ["--to", "hf://org/sums", "--root", str(tmp_path)]
    refused = run("-m", "distill_data.cli", "publish", "sums@v1", *where, HF_TOKEN="hf_wrongWrongWrong")
    assert refused.returncode == 1 and "HF_TOKEN" in refused.stderr and "hf_wrongWrong" not in refused.stderr
