from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from distill_data.corpus.assemble import Assembly
from distill_data.corpus.assembly import whole_prompts
from distill_data.corpus.decide import decide
from distill_data.corpus.label_measures import LabelMeasures
from distill_data.filters.flat_text import Traces
from distill_data.filters.measures import MEASURES
from distill_data.trace_store import TraceStore

MakeJob = Callable[..., Assembly]
NAMES = ["least_logprob", "mean_entropy"]
LIMITS = {"min_logprob": -3.0, "max_mean_entropy": 0.5}


def measured(job: Assembly, name: str) -> np.ndarray:
    return LabelMeasures(job.config.root, job.store, MEASURES[name]).read(job.finished)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Columns of parts that were read, in order."""
    seen: list[str] = []
    original = TraceStore.columns_of

    def counted(store: TraceStore, name: str, columns: list[str]) -> pa.Table:
        seen.extend(columns)
        return original(store, name, columns)

    monkeypatch.setattr(TraceStore, "columns_of", counted)
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_kept_measures_are_those_of_the_labels(make_job: MakeJob, read: list[str], name: str) -> None:
    job = make_job()
    table = job.store.read(job.finished)
    expected = MEASURES[name].of(Traces(table))
    assert np.isfinite(expected).all() and len(set(expected.tolist())) > 1
    assert measured(job, name).tobytes() == expected.tobytes()
    assert read == list(MEASURES[name].reads) * len(job.store.parts())
    order = np.random.default_rng(0).permutation(len(expected))[:7]
    some = LabelMeasures(job.config.root, job.store, MEASURES[name]).read(job.finished.take(pa.array(order)))
    assert some.tobytes() == expected[order].tobytes()
    assert len(read) == len(MEASURES[name].reads) * len(job.store.parts())  # nothing was measured again
    assert len(LabelMeasures(job.config.root, job.store, MEASURES[name]).read(job.finished.slice(0, 0))) == 0


@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_what_cannot_be_read_is_measured_again(make_job: MakeJob, read: list[str], damage: bytes | None) -> None:
    job = make_job()
    expected = measured(job, "mean_entropy")
    for file in LabelMeasures(job.config.root, job.store, MEASURES["mean_entropy"]).folder.iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 1
        file.write_bytes(data if damage is None else damage)
    read.clear()
    assert measured(job, "mean_entropy").tobytes() == expected.tobytes()
    assert read == ["support_counts", "support_logprobs"] * len(job.store.parts())


def test_a_decision_reads_no_labels_twice_and_none_that_no_rule_looks_at(make_job: MakeJob, read: list[str]) -> None:
    job = make_job(filters=LIMITS)
    first = decide(job, lambda progress: None)
    reasons = first.table["drop_reason"].to_pylist()
    assert {"unlikely_token", "high_entropy"} & {*reasons}
    assert {"sampled_logprobs", "support_logprobs"} <= {*read} and "support_ids" not in read
    read.clear()
    again = replace(job, store=TraceStore(job.config.root, job.teacher_id))
    assert decide(again, lambda progress: None).table["drop_reason"].to_pylist() == reasons
    assert "completion" in read and not {"sampled_logprobs", "support_counts", "support_logprobs"} & {*read}
    read.clear()
    decide(make_job(name="other"), lambda progress: None)
    assert not {"sampled_logprobs", "support_counts", "support_logprobs", "prompt_token_ids"} & {*read}


def test_slices_tear_no_prompt_apart_and_hold_every_row_once() -> None:
    draw = np.random.default_rng(0)
    counts = draw.integers(1, 9, 3000)
    counts[[7, 8]] = 5000, 1
    prompts = np.repeat(np.arange(3000), counts)
    tokens = draw.integers(0, 40_000, len(prompts))
    rows = pa.table({"prompt_row": prompts.astype(np.int32), "completion_tokens": tokens.astype(np.int32)})
    found = list(whole_prompts(rows))
    assert [piece.start for piece in found] == [0, *(piece.stop for piece in found[:-1])] and found[-1].stop == len(
        rows
    )
    for piece in found:
        assert piece.start == 0 or prompts[piece.start - 1] != prompts[piece.start]
        alone = len({*prompts[piece].tolist()}) == 1
        assert alone or (piece.stop - piece.start <= 4096 and tokens[piece].sum() <= 2_000_000)
    assert any(prompts[piece].tolist() == [7] * 5000 for piece in found)
    assert list(whole_prompts(rows.slice(0, 0))) == []
