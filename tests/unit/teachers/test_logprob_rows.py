from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from distill_data.teachers.logprob_rows import LogprobRows

WIDTH = 3


def some_rows(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Ids int64 [count, K + 1] and log-probabilities float32 [count, K + 1], as the sampler sends them."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 50_000, size=(count, WIDTH + 1))
    return ids, random.normal(size=ids.shape).astype(np.float32)


def sampled(ids: np.ndarray, logprobs: np.ndarray) -> Any:
    lists = SimpleNamespace(logprob_token_ids=ids, logprobs=logprobs)
    return SimpleNamespace(new_logprobs=lists, new_prompt_logprobs_tensors=None)


def scored(ids: np.ndarray, logprobs: np.ndarray) -> Any:
    tensors = SimpleNamespace(logprob_token_ids=torch.tensor(ids, dtype=torch.int32), logprobs=torch.tensor(logprobs))
    return SimpleNamespace(new_logprobs=None, new_prompt_logprobs_tensors=tensors)


@pytest.mark.parametrize("step", [1, 3, 64, 200])
@pytest.mark.parametrize("output", [sampled, scored])
def test_rows_come_out_as_they_went_in_however_many_come_at_once(output: Any, step: int) -> None:
    ids, logprobs = some_rows(500)
    rows = LogprobRows(WIDTH)
    for start in range(0, 500, step):
        rows.update_from_output(output(ids[start : start + step], logprobs[start : start + step]))
    kept_ids, kept_logprobs = rows.arrays()
    assert (kept_ids.dtype, kept_logprobs.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(kept_ids, ids)
    np.testing.assert_array_equal(kept_logprobs, logprobs)
    np.testing.assert_array_equal(rows.arrays(start=490)[0], ids[490:])


def test_a_step_without_rows_adds_none() -> None:
    rows = LogprobRows(WIDTH)
    rows.update_from_output(SimpleNamespace(new_logprobs=None, new_prompt_logprobs_tensors=None))
    assert [array.shape for array in rows.arrays()] == [(0, WIDTH + 1)] * 2


def test_what_is_kept_does_not_change_with_the_engines_buffers() -> None:
    ids, logprobs = some_rows(2)
    rows = LogprobRows(WIDTH)
    rows.update_from_output(sampled(ids, logprobs))
    ids[:], logprobs[:] = 0, 0.0
    np.testing.assert_array_equal(rows.arrays()[0], some_rows(2)[0])
    np.testing.assert_array_equal(rows.arrays()[1], some_rows(2)[1])


def test_the_frontend_hands_it_out_for_sampled_and_for_scored_tokens() -> None:
    rows = LogprobRows(WIDTH)
    assert rows.logprobs is rows and rows.prompt_logprobs is rows
