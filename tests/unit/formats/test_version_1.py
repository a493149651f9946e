"""What was written in format version 1 keeps opening; the files under version_1 are frozen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data import records
from distill_data.config import Config
from distill_data.corpus.assemble import assemble
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.diff import PromptChange, diff_versions
from distill_data.corpus.digest import corpus_digest
from distill_data.corpus.gc import plan_gc
from distill_data.corpus.lineage import lineage
from distill_data.corpus.manifest import read_manifest
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import CorpusError, TraceStoreError
from distill_data.export import FORMATS, export_corpus
from distill_data.identity import sealed, unsealed
from distill_data.parquet import METADATA_KEY
from distill_data.planning import Retries, make_plan
from distill_data.publish import publish_version
from distill_data.records import prompts_to_table
from distill_data.trace_store import TraceStore
from distill_data.verify.verdict_store import VerdictStore
from tests.unit.corpus.conftest import (
    TEACHER_ID,
    MakeJob,
    make_job,  # noqa: F401 (a fixture)
    make_prompts,
    right_or_wrong,
)

FROZEN = Path(__file__).parent / "version_1"
TRACES = 18


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy that today's code may write into."""
    return Path(shutil.copytree(FROZEN, tmp_path / "root"))


@pytest.fixture
def corpus(root: Path) -> Corpus:
    return open_corpus("sums@stable", root)


def test_the_fixture_is_of_version_1_and_says_what_was_written(corpus: Corpus) -> None:
    assert corpus.manifest.schema_version == 1 and corpus.reference == "sums@v1"
    assert corpus.manifest.counts == {
        "prompts": 6, "traces": TRACES, "kept": 10, "train": 3, "validation": 7, "rejected": 8,
    }  # fmt: skip
    assert corpus.manifest.dropped == {"failed_verifier": 6, "truncated": 2}


def test_it_verifies_and_reads_as_it_was_written(corpus: Corpus) -> None:
    assert verify_corpus(corpus) == []
    said = corpus.table("traces", "validation").slice(0, 1).to_pylist()[0]
    assert (said["thinking"], said["answer"], said["passed"]) == ("add 1", said["reference"], True)
    labels = corpus.table("soft_labels", "train")
    assert sum(map(len, labels["support_ids"].to_pylist())) == sum(map(sum, labels["support_counts"].to_pylist()))


def test_training_reads_it(corpus: Corpus) -> None:
    read = corpus.reader("train")
    streamed = list(corpus.stream("train"))
    tokens = corpus.table("traces", "train")["completion_tokens"].to_pylist()
    assert len(read) == len(streamed) == 3
    assert sorted(len(read[row]["support_counts"]) for row in range(3)) == sorted(tokens)


@pytest.mark.parametrize("format", FORMATS)
def test_it_exports(corpus: Corpus, format: str, tmp_path: Path) -> None:
    assert export_corpus(corpus, format, tmp_path / "out").rows == {"train": 3, "validation": 7}


def test_it_publishes(root: Path, tmp_path: Path) -> None:
    publish_version(root, "sums@v1", f"file://{tmp_path}/shelf")
    assert verify_corpus(Corpus(tmp_path / "shelf/v1", read_manifest(tmp_path / "shelf/v1"))) == []


def test_its_ids_and_digest_are_those_of_today(root: Path, corpus: Corpus) -> None:
    config = Config.model_validate({**corpus.manifest.config, "root": str(root)})
    table, store = prompts_to_table(make_prompts(6)), TraceStore(root, TEACHER_ID)
    finished = make_plan(table["prompt_id"], pa.array([3] * 6).to_numpy(), store.index(), Retries(None)).finished
    assert len(finished) == TRACES and store.description() == corpus.manifest.teacher
    assert corpus_digest(config, corpus.manifest.prompts.digest, TEACHER_ID, finished) == corpus.manifest.digest


def test_todays_next_version_is_built_on_its_traces(root: Path, corpus: Corpus, make_job: MakeJob) -> None:  # noqa: F811
    prompts = make_prompts(7)
    job = make_job(prompts, right_or_wrong(prompts[6:], 3), root=root, judge={"verifier": "exact"})
    after = open_corpus(f"sums@v{assemble(job, lambda _: None).version}", root)
    found = diff_versions(corpus, after)
    assert after.version == 2 and found.prompts == {"sums": PromptChange(added=1, removed=0, kept=6)}
    assert (found.stayed, found.said_otherwise, found.left) == (10, 0, {})
    assert found.came == {"failed_verifier": 6, "new prompt": 2}
    assert plan_gc(root).free == []


def test_a_row_leads_back_to_its_part(root: Path, corpus: Corpus) -> None:
    name = corpus.table("traces", "train")["trace_id"][0].as_py()
    found = lineage(corpus, name, root)
    assert found.part is not None and (root / "traces" / TEACHER_ID / found.part).is_file()
    assert found.judge is not None and found.judge["verifier"] == "exact"


def verdicts(root: Path) -> VerdictStore:
    ingredients = json.loads(next((root / "verdicts").rglob("verifier.json")).read_text())
    return VerdictStore(root, TEACHER_ID, ingredients)


def test_its_verdicts_are_not_asked_for_again(root: Path) -> None:
    (part,) = (root / "verdicts").rglob("part-*.parquet")
    keys = pq.read_table(part)["key"].combine_chunks()
    assert len(keys) == TRACES
    assert verdicts(root).find(keys)["score"].null_count == 0


def of_the_next_version(file: Path) -> None:
    """Let a Parquet file say that it is of a newer format."""
    table = pq.read_table(file)
    facts = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}")) | {"schema_version": 2}
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(facts)}), file)


def rewritten(file: Path, **changes: Any) -> None:
    """A sealed JSON file that says something else and is not damaged."""
    file.write_text(json.dumps(sealed({**unsealed(json.loads(file.read_text())), **changes})))


def test_what_is_newer_says_to_upgrade(root: Path, corpus: Corpus) -> None:
    assert records.SCHEMA_VERSION == 1  # a new format gets a folder of its own beside version_1
    (part,) = (root / "traces").rglob("part-*.parquet")
    of_the_next_version(part)
    with pytest.raises(TraceStoreError, match=rf"{part} has schema version 2 .* reads up to 1: upgrade distill-data"):
        TraceStore(root, TEACHER_ID).index()
    (part,) = (root / "verdicts").rglob("part-*.parquet")
    of_the_next_version(part)
    with pytest.raises(TraceStoreError, match=rf"{part} has schema version 2 .* reads up to 1: upgrade distill-data"):
        verdicts(root)
    rewritten(root / "corpora/sums/tags.json", format=2, tags={"stable": "somehow else"})
    with pytest.raises(CorpusError, match=r"tags.json has format 2 .* reads up to 1: upgrade distill-data"):
        open_corpus("sums@stable", root)
    rewritten(corpus.path / "manifest.json", schema_version=2, something_new=True)
    with pytest.raises(CorpusError, match=r"manifest.json has schema version 2 .* reads up to 1: upgrade distill-data"):
        open_corpus("sums@v1", root)


def test_a_published_version_that_is_newer_is_left_alone(root: Path, corpus: Corpus, tmp_path: Path) -> None:
    shelf = f"file://{tmp_path}/shelf"
    publish_version(root, "sums@v1", shelf)
    rewritten(tmp_path / "shelf/v1/manifest.json", schema_version=2)
    with pytest.raises(CorpusError, match=r"schema version 2 .*: upgrade distill-data"):
        publish_version(root, "sums@v1", shelf)
