from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distill_data.config import Config
from distill_data.planning import PASSING_ERRORS, Plan, Retries, make_plan, sampled_as, shard_of
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
        "failed_too": [False] * count,
    }
    return pa.table(columns, INDEX_SCHEMA)


def plan_for(ids: pa.ChunkedArray, samples: int, index: pa.Table, max_model_len: int | None, **retries: Any) -> Plan:
    """A plan in which every prompt is sampled as often."""
    return make_plan(ids, np.full(len(ids), samples), index, Retries(max_model_len, **retries))


def one_trace(**columns: Any) -> pa.Table:
    """An index of trace 0 of prompt 0: 100 prompt tokens and 50 completion tokens, of which a column is changed."""
    row = {name: values[0] for name, values in index_of([(0, 0)], prompt_tokens=100).to_pydict().items()}
    return pa.Table.from_pylist([{**row, "completion_tokens": 50, **columns}], INDEX_SCHEMA)


def room_of(plan: Plan) -> list[int | None]:
    return plan.missing["max_tokens"].to_pylist()


def pairs(table: pa.Table) -> list[tuple[int, int]]:
    return list(zip(table["prompt_row"].to_pylist(), table["sample_index"].to_pylist(), strict=True))


def every_pair(prompts: int, samples: int) -> list[tuple[int, int]]:
    return [(row, sample) for row in range(prompts) for sample in range(samples)]


@pytest.mark.parametrize("seed", range(8))
def test_finished_and_missing_are_all_that_is_wanted_in_planned_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = every_pair(17, 3)
    done = [wanted[at] for at in rng.permutation(len(wanted))[: rng.integers(len(wanted) + 1)]]
    plan = plan_for(prompt_ids(17), 3, index_of(done), None)
    assert pairs(plan.finished) == sorted(done)
    assert pairs(plan.missing) == sorted(set(wanted) - set(done))
    assert plan.wanted == 51
    assert [done[row] for row in plan.finished["row"].to_pylist()] == pairs(plan.finished)
    assert plan.finished["content_digest"].to_pylist() == [f"digest {row} {sample}" for row, sample in sorted(done)]


def test_raising_samples_keeps_what_is_there() -> None:
    index = index_of(every_pair(4, 2))
    more = plan_for(prompt_ids(4), 3, index, None)
    assert pairs(more.missing) == [(row, 2) for row in range(4)]
    fewer = plan_for(prompt_ids(4), 1, index, None)
    assert pairs(fewer.finished) == [(row, 0) for row in range(4)]
    assert len(fewer.missing) == 0


def test_prompts_may_come_go_and_move() -> None:
    index = index_of(every_pair(4, 2))
    more = plan_for(prompt_ids(6), 2, index, None)
    assert pairs(more.missing) == [(4, 0), (4, 1), (5, 0), (5, 1)]
    moved = plan_for(pa.chunked_array([["new", "p000003", "p000001"]]), 2, index, None)
    assert pairs(moved.missing) == [(0, 0), (0, 1)]
    assert moved.finished["content_digest"].to_pylist() == ["digest 3 0", "digest 3 1", "digest 1 0", "digest 1 1"]


def test_nothing_there_and_nothing_wanted() -> None:
    nothing = index_of([])
    assert pairs(plan_for(prompt_ids(2), 2, nothing, None).missing) == every_pair(2, 2)
    none = plan_for(pa.chunked_array([[]], pa.string()), 2, index_of(every_pair(2, 2)), 99)
    assert none.wanted == 0
    assert len(none.missing) == 0


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
    plan = plan_for(prompt_ids(1), 1, index_of([(0, 0)], error, prompt_tokens=100), max_model_len)
    assert (len(plan.missing), len(plan.finished)) == ((1, 0) if missing else (0, 1))


@pytest.mark.parametrize(
    ("finish_reason", "max_model_len", "missing"),
    [("context", 100, False), ("context", 101, True), ("context", None, False), ("length", 1000, False)],
)
def test_a_trace_that_the_context_cut_is_made_again_with_more(
    finish_reason: str, max_model_len: int | None, missing: bool
) -> None:
    index = index_of([(0, 0)], prompt_tokens=100, finish_reason=finish_reason)
    plan = plan_for(prompt_ids(1), 1, index, max_model_len)
    assert len(plan.missing) == missing


@pytest.mark.parametrize("traces", [[], [0], [3, 1, 40], list(range(49))])
def test_a_shard_is_the_rows_of_the_missing_work_that_it_names(traces: list[int]) -> None:
    plan = plan_for(prompt_ids(17), 3, index_of([(2, 1), (9, 0)]), None)
    shard = shard_of(plan.missing, np.array(traces, np.int64))
    covered = list(zip(shard.prompt_rows.tolist(), shard.sample_indexes.tolist(), strict=True))
    assert covered == [pairs(plan.missing)[trace] for trace in traces]
    assert (len(shard), shard.traces.tolist(), shard.cause) == (len(traces), traces, None)


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
            "failed_too": pa.repeat(False, count),
        },
        INDEX_SCHEMA,
    )
    plan = plan_for(ids, samples, index, 1024)
    assert len(plan.finished) == count
    place = plan.missing["prompt_row"].to_numpy().astype(np.int64) * samples + plan.missing["sample_index"].to_numpy()
    np.testing.assert_array_equal(place, np.flatnonzero(np.arange(prompts * samples) % 3))


@pytest.mark.parametrize("seed", range(4))
def test_every_prompt_is_wanted_as_often_as_it_is_sampled(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = rng.integers(1, 5, 17)
    stored = every_pair(17, 3)  # more than some prompts want, less than others
    plan = make_plan(prompt_ids(17), samples, index_of(stored), Retries(None))
    wanted = [(row, sample) for row in range(17) for sample in range(samples[row])]
    assert pairs(plan.finished) == [pair for pair in wanted if pair in stored]
    assert pairs(plan.missing) == [pair for pair in wanted if pair not in stored]
    assert plan.wanted == samples.sum()
    assert room_of(plan) == [None] * len(plan.missing)


def config_of(*sources: dict[str, Any], **teacher: Any) -> Config:
    prompts = [{"source": "reasoning_gym", "task": "chain_sum", "size": 1, **source} for source in sources]
    return Config.model_validate({"name": "n", "prompts": prompts, "teacher": {"model": "m", **teacher}})


def test_samples_and_max_tokens_follow_the_source_of_a_prompt() -> None:
    settings = config_of(
        {"name": "plain"},
        {"name": "often", "sampling": {"samples": 5}},
        {"name": "long", "sampling": {"max_tokens": 99}},
        sampling={"samples": 2, "max_tokens": 7},
    )
    sources = pa.chunked_array([["long", "plain"], ["often", "plain"]], pa.string())
    assert sampled_as(settings, sources, "samples").tolist() == [2, 2, 5, 2]
    assert sampled_as(settings, sources, "max_tokens").tolist() == [99, 7, 7, 7]


@pytest.mark.parametrize(
    ("columns", "retries", "again"),
    [
        ({"finish_reason": "length"}, {}, False),
        ({"finish_reason": "length"}, {"max_tokens": 50}, False),  # that many it had
        ({"finish_reason": "length"}, {"max_tokens": 51}, True),
        ({"finish_reason": "length", "failed_too": True}, {"max_tokens": 51}, False),
        ({"finish_reason": "length", "failed_too": True}, {"max_tokens": 51, "failed": True}, True),
        ({"finish_reason": "stop"}, {"max_tokens": 51}, False),
        ({"finish_reason": "context"}, {"max_tokens": 51}, False),
    ],
)
@pytest.mark.parametrize("max_model_len", [None, 151])
def test_a_trace_that_max_tokens_cut_is_made_again_with_more(
    columns: dict[str, Any], retries: dict[str, Any], again: bool, max_model_len: int | None
) -> None:
    if columns["finish_reason"] == "context" and max_model_len is not None:
        again = True  # here for another reason: the context has grown
    plan = plan_for(prompt_ids(1), 1, one_trace(**columns), max_model_len, **retries)
    assert (len(plan.missing), len(plan.finished)) == ((1, 0) if again else (0, 1))
    assert room_of(plan) == [51] * again


def test_no_retry_where_the_context_has_no_more_room() -> None:
    full = one_trace(finish_reason="length")  # 150 tokens
    assert len(plan_for(prompt_ids(1), 1, full, 150, max_tokens=99).missing) == 0
    assert len(plan_for(prompt_ids(1), 1, full, 151, max_tokens=99).missing) == 1


@pytest.mark.parametrize(
    ("sampled", "max_tokens", "room"),
    [
        (60, None, [None]),
        (50, None, []),  # it had 50 tokens with a retry that is no longer asked for: as sampled it would be shorter
        (50, 60, [60]),
        (20, 50, []),
    ],
)
def test_a_context_cut_is_made_again_only_where_it_can_grow(sampled: int, max_tokens: int | None, room: Any) -> None:
    index = one_trace(finish_reason="context")
    plan = plan_for(prompt_ids(1), 1, index, 999, max_tokens=max_tokens, sampled_max_tokens=np.array([sampled]))
    assert room_of(plan) == room


@pytest.mark.parametrize("finish_reason", ["context", "error"])
def test_more_context_is_not_tried_again_after_a_failure_until_asked(finish_reason: str) -> None:
    error = "prompt_too_long" if finish_reason == "error" else None
    index = one_trace(finish_reason=finish_reason, error=error, failed_too=True)
    assert len(plan_for(prompt_ids(1), 1, index, 999).missing) == 0
    assert len(plan_for(prompt_ids(1), 1, index, 999, failed=True).missing) == 1
    assert len(plan_for(prompt_ids(1), 1, index, 150, failed=True).missing) == 0  # it would not fit


@pytest.mark.parametrize("error", [*PASSING_ERRORS, "prompt_too_long", "empty_prompt", "token_out_of_vocabulary", None])
def test_failures_that_may_pass_are_made_again_only_when_asked(error: str | None) -> None:
    index = index_of([(0, 0)], error)
    assert len(plan_for(prompt_ids(1), 1, index, None).missing) == 0
    asked = plan_for(prompt_ids(1), 1, index, None, failed=True)
    assert room_of(asked) == [None] * (error in PASSING_ERRORS)


def test_shards_say_which_traces_have_more_room() -> None:
    cut = index_of([(0, 1), (2, 0)], finish_reason="length")
    plan = plan_for(prompt_ids(3), 2, cut, None, max_tokens=64)
    assert room_of(plan) == [None, 64, None, None, 64, None]
    shard = shard_of(plan.missing, np.arange(6))
    assert shard.max_tokens.tolist() == [0, 64, 0, 0, 64, 0]
    assert shard.max_tokens.dtype == np.int32
