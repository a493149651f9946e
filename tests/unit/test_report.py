from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill_data.build_report import BuildReport
from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.read import open_corpus
from distill_data.report.run import RunReport, run_summary
from distill_data.report.version import corpus_summary
from tests.unit.corpus.conftest import make_job as make_job

MakeJob = Callable[..., Assembly]


def built(root: str) -> RunReport:
    build = BuildReport(
        corpus="sums@v2",
        path=str(Path(root) / "corpora" / "sums" / "v2"),
        created=True,
        digest="d",
        rows=1,
        train=1,
        validation=0,
        dropped={},
        pass_rate=None,
        generated_traces=0,
        generated_tokens=0,
        reused_traces=1,
        restarts=0,
        regenerated_traces=0,
        dead_letters=0,
        load_seconds=0.0,
        engine_seconds=0.0,
        tokens_per_second=0.0,
        soft_label_bytes_per_token=None,
    )
    return RunReport(build, None)


@pytest.mark.parametrize(
    ("root", "option"),
    [("./data", ""), ("/big disk/d", " --root '/big disk/d'"), ("runs", " --root runs"), (".", " --root .")],
)
def test_suggested_commands_name_the_root(root: str, option: str) -> None:
    lines = run_summary(built(root)).splitlines()
    assert f"  distill-data corpus show sums@v2{option}" in lines
    assert f"  distill-data corpus verify sums@v2{option}" in lines


def test_a_corpus_is_shown_with_its_first_row_alone(make_job: MakeJob, tmp_path: Path) -> None:
    assemble(make_job(storage={"rows_per_file": 10}), lambda progress: None)
    corpus = open_corpus("sums@v1", tmp_path)
    first = corpus.table("traces").slice(0, 1).to_pylist()[0]
    corpus.files("traces", "train")[1].write_bytes(b"no parquet")
    assert f"  {'trace_id':<20}{first['trace_id']!r}" in corpus_summary(corpus).splitlines()
