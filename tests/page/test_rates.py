from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest

from distill_data.page.rates import SOURCES_SHOWN, ks_up_to, pass_at_k, rates


def by_drawing(judged: int, passed: int, k: int) -> float:
    """The share of all ways to draw k of the samples in which one passes."""
    drawn = list(combinations([True] * passed + [False] * (judged - passed), k))
    return sum(map(any, drawn)) / len(drawn)


def test_pass_at_k_is_the_share_of_draws_in_which_a_sample_passes() -> None:
    pairs = [(n, c) for n in range(1, 8) for c in range(n + 1)]
    judged, passed = np.array(pairs).T
    for k in range(1, 8):
        found = pass_at_k(judged, passed, k)
        for (n, c), value in zip(pairs, found, strict=True):
            assert np.isnan(value) if n < k else value == pytest.approx(by_drawing(n, c, k))


def test_pass_at_k_of_many_samples_does_not_overflow() -> None:
    expected = 1 - np.prod([1 - 100 / i for i in range(1000 - 3 + 1, 1001)])
    assert pass_at_k(np.array([1000]), np.array([3]), 100)[0] == pytest.approx(expected)


@pytest.mark.parametrize(("samples", "ks"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_ks_end_at_the_samples(samples: int, ks: list[int]) -> None:
    assert ks_up_to(samples) == ks


def table(rows: list[tuple[str, int, int]]) -> pa.Table:
    sources, judged, passed = zip(*rows, strict=True)
    return pa.table({"source": list(sources), "judged": list(judged), "passed": list(passed)})


def test_groups_count_every_judged_prompt_once() -> None:
    found = rates(table([("a", 4, 4), ("a", 4, 1), ("a", 2, 1), ("b", 4, 0), ("b", 0, 0), ("b", 4, 3)]))
    assert found is not None
    assert (found.overall.prompts, found.overall.judged, found.overall.passed) == (5, 18, 9)
    assert found.overall.rate == 0.5
    assert [(rate.label, rate.prompts) for rate in found.by_source] == [("a", 3), ("b", 2)]
    assert [(rate.label, rate.prompts) for rate in found.by_difficulty] == [
        ("no sample passes", 1),
        ("up to 1 in 4", 1),
        ("up to 1 in 2", 1),
        ("up to 3 in 4", 1),
        ("every sample passes", 1),
    ]


def test_prompts_with_too_few_samples_are_left_out_of_the_mean_and_counted() -> None:
    found = rates(table([("a", 4, 1), ("a", 2, 1), ("b", 1, 0)]))
    assert found is not None
    by_source = {rate.label: rate for rate in found.by_source}
    assert found.ks == [1, 2, 4]
    assert by_source["a"].at_k == pytest.approx([(1 / 4 + 1 / 2) / 2, (1 / 2 + 1) / 2, 1.0])
    assert by_source["a"].at_k_prompts == [2, 2, 1]
    assert by_source["b"].at_k == [0.0, None, None]


def test_small_sources_are_counted_and_not_listed() -> None:
    found = rates(table([(f"s{n:02}", 1, 1) for n in range(SOURCES_SHOWN + 3)]))
    assert found is not None
    assert len(found.by_source) == SOURCES_SHOWN and found.other_sources == 3


def test_nothing_judged_gives_no_rates() -> None:
    assert rates(table([("a", 0, 0)])) is None
