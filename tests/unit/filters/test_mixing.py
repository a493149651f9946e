from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distill_data.filters.mixing import mixed, rows_by_source
from distill_data.keep_config import Mix

THERE = {"math": 100, "code": 50, "general": 30}


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ({"max_rows": {"math": 20, "general": 90}}, {"math": 20, "code": 50, "general": 30}),
        ({"rows": 90}, {"math": 50, "code": 25, "general": 15}),
        ({"rows": 1000}, THERE),
        ({"weights": {"math": 3, "general": 1}}, {"math": 90, "code": 50, "general": 30}),
        ({"weights": {"math": 1, "code": 1, "general": 2}}, {"math": 15, "code": 15, "general": 30}),
        ({"weights": {"math": 3, "general": 1}, "rows": 90}, {"math": 30, "code": 50, "general": 10}),
        ({"weights": {"math": 3, "general": 1}, "rows": 40}, {"math": 0, "code": 40, "general": 0}),
        ({"weights": {"math": 1, "code": 1}, "max_rows": {"code": 10}}, {"math": 10, "code": 10, "general": 30}),
    ],
)
def test_rows_by_source(mix: dict[str, Any], expected: dict[str, int]) -> None:
    assert rows_by_source(THERE, Mix(**mix)) == expected


def test_a_source_that_is_gone_takes_no_share() -> None:
    assert rows_by_source({"math": 10}, Mix(weights={"math": 1, "general": 9})) == {"math": 10}
    assert rows_by_source({}, Mix(rows=5)) == {}


def labelled(prompts: int, samples: int) -> tuple[np.ndarray, pa.Array, pa.Array]:
    sources = pa.array(["math" if n % 3 else "general" for n in range(prompts)])
    return np.repeat(np.arange(prompts), samples), sources, pa.array([f"group-{n}" for n in range(prompts)])


def test_whole_prompts_go_first_and_reasons_stay() -> None:
    rows, sources, groups = labelled(60, 4)
    reasons = pa.array([None if n % 5 else "truncated" for n in range(240)])
    found = mixed(reasons, rows, sources, groups, Mix(max_rows={"math": 50})).to_pylist()
    assert [one for one in found if one == "truncated"] == ["truncated"] * 48
    kept = [n for n in range(240) if found[n] is None]
    of = Counter(sources[int(rows[n])].as_py() for n in kept)
    there = Counter(sources[int(rows[n])].as_py() for n in range(240) if n % 5)
    assert of == {"math": 50, "general": there["general"]}
    split = {int(rows[n]) for n in kept} & {int(rows[n]) for n in range(240) if found[n] == "not_in_mix"}
    assert len(split) <= 1  # only the last prompt that fits in part


def test_a_larger_mix_holds_the_smaller_one_and_more_prompts_change_little() -> None:
    rows, sources, groups = labelled(90, 2)
    none = pa.nulls(180, pa.string())

    def kept(count: int) -> set[int]:
        found = mixed(none, rows, sources, groups, Mix(rows=count)).to_pylist()
        return {n for n, reason in enumerate(found) if reason is None}

    assert kept(30) < kept(60) < kept(120) and len(kept(60)) == 60
    other = mixed(none, rows, sources, groups, Mix(rows=60, seed=1)).to_pylist()
    assert {n for n, reason in enumerate(other) if reason is None} != kept(60)
