from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill_data.corpus.assemble import assemble
from distill_data.corpus.read import open_corpus
from distill_data.corpus.write import file_metadata

from .conftest import MakeJob

SECOND = {"source": "dataset", "path": "other.jsonl", "prompt": "q"}


@pytest.mark.parametrize(
    ("sections", "temperature"),
    [
        ({}, 0.7),
        ({"source": {"sampling": {"temperature": 0.2}}}, 0.2),
        ({"source": {"sampling": {"top_k": 5}}}, 0.7),
        ({"source": {"completion": "c"}, "teacher": {"mode": "score", "sampling": {}}}, None),
    ],
)
def test_files_say_at_what_temperature_their_rows_were_sampled(
    make_job: MakeJob, sections: dict[str, Any], temperature: float | None
) -> None:
    assert file_metadata(make_job(**sections))["sampling_temperature"] == temperature


def test_temperatures_that_differ_are_told_by_source(make_job: MakeJob) -> None:
    job = make_job(source={"sampling": {"temperature": 0.2}})
    tree = job.config.model_dump()
    two = job.config.model_validate({**tree, "prompts": [*tree["prompts"], SECOND]})
    metadata = file_metadata(type(job)(**{**vars(job), "config": two}))
    assert metadata["sampling_temperature"] == {"sums": 0.2, "other": 0.7}


def test_no_row_group_is_empty_where_no_prompt_was_dropped(make_job: MakeJob, tmp_path: Path) -> None:
    assemble(make_job(judge={"verifier": "exact"}, keep={"passed_only": True}), lambda progress: None)
    (path,) = open_corpus("sums", tmp_path).files("rejected", "rejected")
    metadata = pq.read_metadata(path)
    assert metadata.num_rows and all(metadata.row_group(at).num_rows for at in range(metadata.num_row_groups))
    from datasets import Dataset  # which cannot read an empty first group

    assert len(Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))) == metadata.num_rows
