from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from distill_data.planning import Plan, cut_shards, make_plan
from distill_data.trace_store import TraceStore

INDEX_SCHEMA = TraceStore("nowhere", "none").index().schema


def prompt_ids(count: int) -> pa.ChunkedArray:
    names = [f"p{number:06}" for number in range(count)]
    return pa.chunked_array([names[: count // 2], names[count // 2 :]], pa.string())


def index_of(
    done: list[tuple[int, int]], error: str | None = None, prompt_tokens: int = 5, finish_reason: str = "stop"
) -> pa.Table:
    count = len(done)
    columns = {
        "prompt_id": [f"p{row:06}" for row, _ in done],
        "sample_index": [sample for _, sample in done],
        "content_digest": [f"digest {row} {sample}" for row, sample in done],
        "finish_reason": ["error" if error else finish_reason] * count,
        "error": [error] * count,
        "prompt_tokens": [prompt_tokens] * count,
        "completion_tokens": [row + sample for row, sample in done],
        "part": ["part-x"] * count,
        "row": list(range(count)),
    }
    return pa.table(columns, INDEX_SCHEMA)


def pairs(table: pa.Table) -> list[tuple[int, int]]:
    return list(zip(table["prompt_row"].to_pylist(), table["sample_index"].to_pylist(), strict=True))


def every_pair(prompts: int, samples: int) -> list[tuple[int, int]]:
    return [(row, sample) for row in range(prompts) for sample in range(samples)]


@pytest.mark.parametrize("seed", range(8))
def test_finished_and_missing_are_all_that_is_wanted_in_planned_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = every_pair(17, 3)
    done = [wanted[at] for at in rng.permutation(len(wanted))[: rng.integers(len(wanted) + 1)]]
    plan = make_plan(prompt_ids(17), 3, index_of(done), None)
    assert pairs(plan.finished) == sorted(done)
    assert pairs(plan.missing) == sorted(set(wanted) - set(done))
    assert plan.wanted == 51
    assert [done[row] for row in plan.finished["row"].to_pylist()] == pairs(plan.finished)
    assert plan.finished["content_digest"].to_pylist() == [f"digest {row} {sample}" for row, sample in sorted(done)]


def test_raising_samples_keeps_what_is_there() -> None:
    index = index_of(every_pair(4, 2))
    more = make_plan(prompt_ids(4), 3, index, None)
    assert pairs(more.missing) == [(row, 2) for row in range(4)]
    fewer = make_plan(prompt_ids(4), 1, index, None)
    assert pairs(fewer.finished) == [(row, 0) for row in range(4)]
    assert len(fewer.missing) == 0


def test_prompts_may_come_go_and_move() -> None:
    index = index_of(every_pair(4, 2))
    more = make_plan(prompt_ids(6), 2, index, None)
    assert pairs(more.missing) == [(4, 0), (4, 1), (5, 0), (5, 1)]
    moved = make_plan(pa.chunked_array([["new", "p000003", "p000001"]]), 2, index, None)
    assert pairs(moved.missing) == [(0, 0), (0, 1)]
    assert moved.finished["content_digest"].to_pylist() == ["digest 3 0", "digest 3 1", "digest 1 0", "digest 1 1"]


def test_nothing_there_and_nothing_wanted() -> None:
    nothing = index_of([])
    assert pairs(make_plan(prompt_ids(2), 2, nothing, None).missing) == every_pair(2, 2)
    none = make_plan(pa.chunked_array([[]], pa.string()), 2, index_of(every_pair(2, 2)), 99)
    assert none.wanted == 0
    assert cut_shards(none.missing, 4) == []


@pytest.mark.parametrize(
    ("error", "max_model_len", "missing"),
    [
        ("prompt_too_long", 100, False),
        ("prompt_too_long", 101, True),  # 100 prompt tokens and room for one more
        ("prompt_too_long", None, False),
        ("request_failed", 1000, False),
        (None, 1000, False),
    ],
)
def test_a_prompt_that_was_too_long_is_asked_again_once_it_fits(
    error: str | None, max_model_len: int | None, missing: bool
) -> None:
    plan = make_plan(prompt_ids(1), 1, index_of([(0, 0)], error, prompt_tokens=100), max_model_len)
    assert (len(plan.missing), len(plan.finished)) == ((1, 0) if missing else (0, 1))


@pytest.mark.parametrize(
    ("finish_reason", "max_model_len", "missing"),
    [("context", 100, False), ("context", 101, True), ("context", None, False), ("length", 1000, False)],
)
def test_a_trace_that_the_context_cut_is_made_again_with_more(
    finish_reason: str, max_model_len: int | None, missing: bool
) -> None:
    index = index_of([(0, 0)], prompt_tokens=100, finish_reason=finish_reason)
    plan = make_plan(prompt_ids(1), 1, index, max_model_len)
    assert len(plan.missing) == missing


@pytest.mark.parametrize("shard_size", [1, 4, 7, 51, 1000])
def test_shards_cover_the_missing_work_once_in_order(shard_size: int) -> None:
    plan = make_plan(prompt_ids(17), 3, index_of([(2, 1), (9, 0)]), None)
    shards = cut_shards(plan.missing, shard_size)
    covered = [
        (int(row), int(sample))
        for shard in shards
        for row, sample in zip(shard.prompt_rows, shard.sample_indexes, strict=True)
    ]
    assert covered == pairs(plan.missing)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert all(len(shard) == shard_size for shard in shards[:-1])
    assert 0 < len(shards[-1]) <= shard_size


def test_many_prompts() -> None:
    prompts, samples = 200_000, 4
    rows, indexes = np.divmod(np.arange(0, prompts * samples, 3), samples)
    ids = prompt_ids(prompts)
    count = len(rows)
    index = pa.table(
        {
            "prompt_id": ids.take(pa.array(rows)),
            "sample_index": pa.array(indexes, pa.int32()),
            "content_digest": pa.nulls(count, pa.string()),
            "finish_reason": pa.nulls(count, pa.string()),
            "error": pa.nulls(count, pa.string()),
            "prompt_tokens": pa.array(np.full(count, 5), pa.int32()),
            "completion_tokens": pa.array(np.full(count, 5), pa.int32()),
            "part": pa.nulls(count, pa.string()),
            "row": pa.array(np.arange(count)),
        },
        INDEX_SCHEMA,
    )
    plan: Plan = make_plan(ids, samples, index, 1024)
    assert len(plan.finished) == count
    place = plan.missing["prompt_row"].to_numpy().astype(np.int64) * samples + plan.missing["sample_index"].to_numpy()
    np.testing.assert_array_equal(place, np.flatnonzero(np.arange(prompts * samples) % 3))
    shards = cut_shards(plan.missing, 256)
    assert sum(len(shard) for shard in shards) == len(plan.missing)
    assert all(after.prompt_rows[0] >= before.prompt_rows[-1] for before, after in pairwise(shards))
