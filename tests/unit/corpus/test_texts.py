from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.build import assemble_version, generate_missing
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.corpus.texts import text_problems
from distill_data.corpus.tokenizer import version_tokenizer
from distill_data.errors import ModelError
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts

TRAIN = "train-00000-of-00001.parquet"


@pytest.fixture
def corpus(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    settings = make_config(tmp_path / "root", tiny_model, write_prompts(tmp_path / "p.jsonl", 12))
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)
    build = plan(settings)
    generate_missing(build, lambda _: None)
    assemble_version(build, lambda *_: None)
    return open_corpus("replayed", settings.root)


def test_ids_and_words_agree_in_what_a_build_makes(corpus: Corpus) -> None:
    assert text_problems(corpus, version_tokenizer(corpus, download=False)) == []


def test_a_row_with_other_ids_is_named(corpus: Corpus) -> None:
    labels = corpus.table("soft_labels")
    rows = labels.to_pylist()
    rows[3]["completion_token_ids"][0] += 1
    path = corpus.path / "soft_labels" / TRAIN
    pq.write_table(pa.Table.from_pylist(rows, labels.schema), path)
    assert text_problems(corpus, version_tokenizer(corpus, download=False)) == [
        f"soft_labels/{TRAIN}: row 3: completion_token_ids say other words than traces/{TRAIN}"
    ]


@pytest.mark.parametrize(
    ("teacher", "why"),
    [({"model": "org/name"}, "is on a hub, and nothing is downloaded here"), ({}, "is not the one that the version")],
)
def test_a_tokenizer_that_is_not_to_be_had_says_why(corpus: Corpus, teacher: dict[str, Any], why: str) -> None:
    config = corpus.manifest.config | {"teacher": corpus.manifest.config["teacher"] | teacher}
    manifest = corpus.manifest.model_copy(update={"config": config, "tokenizer": {"sha256": "0"}})
    with pytest.raises(ModelError, match=why):
        version_tokenizer(Corpus(corpus.path, manifest), download=False)
