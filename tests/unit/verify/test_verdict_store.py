from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from distill_data.errors import TraceStoreError
from distill_data.records import Prompt, prompts_to_table
from distill_data.verify.verdict_store import VERDICT_SCHEMA, VerdictStore, judged_as, verdict_keys, verifier_id

MATH = {"verifier": "math", "version": 1}


def verdicts(*rows: tuple[str, float | None, str | None]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(VERDICT_SCHEMA.names, row, strict=True)) for row in rows], VERDICT_SCHEMA)


def keys(*names: str) -> pa.Array:
    return pa.array(names, pa.string())


def test_what_was_said_is_found_again_in_another_process(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path, "teacher", MATH)
    assert store.find(keys("a")).to_pylist() == [{"key": "a", "score": None, "error": None}]
    store.commit(verdicts(("a", 0.9, None), ("b", None, "ValueError: x")))
    store.commit(verdicts(("c", 0.0, None)))
    found = VerdictStore(tmp_path, "teacher", MATH).find(keys("c", "no", "b", "a"))
    assert found["score"].to_pylist() == [0.0, None, None, 0.9]
    assert found["error"].to_pylist() == [None, None, "ValueError: x", None]
    assert (store.folder / "verifier.json").read_text() == '{\n  "verifier": "math",\n  "version": 1\n}'


def test_keys_are_told_apart_whatever_their_order_and_beginning(tmp_path: Path) -> None:
    names = [f"{number * 7919 % 1000:032x}-{'ab' * 8}" for number in range(1000)]
    long = ["x" * 60, "x" * 59 + "y", "x" * 49]  # alike in the bytes that are looked at first
    store = VerdictStore(tmp_path, "teacher", MATH)
    store.commit(verdicts(*((name, float(row), None) for row, name in enumerate(names))))
    store.commit(verdicts((long[0], 0.5, None)))
    opened = VerdictStore(tmp_path, "teacher", MATH)
    asked = [*reversed(names), *long, "", "0", names[3][:-1], names[3] + "0"]
    found = opened.find(keys(*asked))
    assert found["key"].to_pylist() == asked
    assert found["score"].to_pylist() == [*map(float, reversed(range(1000))), 0.5, None, None, *[None] * 4]
    assert opened.find(keys()).num_rows == 0


@pytest.mark.parametrize(("teacher", "verifier"), [("other", MATH), ("teacher", MATH | {"version": 2})])
def test_another_teacher_or_verifier_knows_nothing_of_it(tmp_path: Path, teacher: str, verifier: Any) -> None:
    VerdictStore(tmp_path, "teacher", MATH).commit(verdicts(("a", 1.0, None)))
    assert VerdictStore(tmp_path, teacher, verifier).find(keys("a"))["score"].to_pylist() == [None]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = VerdictStore(tmp_path, "teacher", MATH)
    store.commit(verdicts(*((str(n), 1.0, None) for n in range(100))))
    (part,) = store.folder.glob("part-*.parquet")
    data = bytearray(part.read_bytes())
    data[len(data) // 4] ^= 1
    part.write_bytes(data)
    with pytest.raises(TraceStoreError, match=rf"{part.name} is damaged .*: delete it, and what it held is judged"):
        VerdictStore(tmp_path, "teacher", MATH)


def test_a_key_is_the_trace_and_what_it_is_judged_against() -> None:
    asked = [{"role": "user", "content": "1 + 1"}]
    prompts = [
        Prompt(asked, "x", "2"), Prompt(asked, "x", "3"), Prompt(asked, "x", "2", {"tests": "a"}),
        Prompt([{"role": "user", "content": "2 + 0"}], "x", "2"), Prompt(asked, "another source", "2"),
    ]  # fmt: skip
    judged = judged_as(prompts_to_table(prompts)).to_pylist()
    assert len(set(judged)) == 4 and judged[4] == judged[0]
    made = verdict_keys(pa.chunked_array([["d1", "d2"]]), pa.array(judged[:2]))
    assert made.to_pylist() == [f"d1-{judged[0]}", f"d2-{judged[1]}"]


def test_the_id_is_made_of_the_ingredients_alone() -> None:
    assert verifier_id({"b": 1, "a": 2}) == verifier_id({"a": 2, "b": 1}) != verifier_id({"a": 2})
