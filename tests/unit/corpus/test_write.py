from __future__ import annotations

from typing import Any

import pytest

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
