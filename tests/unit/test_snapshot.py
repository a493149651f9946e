from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.errors import TraceStoreError
from distill_data.prompts import PromptSet, save_prompts
from distill_data.prompts.snapshot import read_prompts
from distill_data.records import Prompt, prompts_to_table

PROMPTS = [
    Prompt(
        [{"role": "user", "content": f"{number} 你好"}],
        "s",
        str(number),
        {"row": number},
        f"{number} é" if number % 2 else None,
        {"temperature": 0.5, "stop_token_ids": [number]} if number % 3 else None,
    )
    for number in range(25)
]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """25 prompts in row groups of 7."""
    pq.write_table(prompts_to_table(PROMPTS), tmp_path / "p.parquet", row_group_size=7)
    return tmp_path / "p.parquet"


@pytest.mark.parametrize(
    "rows", [[0], [24], [6, 7], [0, 24], [8, 9, 13, 14, 20, 21], list(range(25)), [3, 22], [], [7, 14, 21]]
)
def test_ascending_rows_from_any_row_groups(saved: Path, rows: list[int]) -> None:
    assert read_prompts(saved, np.array(rows, np.int32)) == [PROMPTS[row] for row in rows]


@pytest.mark.parametrize("seed", range(10))
def test_random_rows(saved: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(25)[: rng.integers(1, 25)])
    assert read_prompts(saved, rows) == [PROMPTS[row] for row in rows]


def test_prompts_saved_before_there_were_completions_and_overrides_are_read(tmp_path: Path) -> None:
    plain = [Prompt(prompt.messages, "s", prompt.reference, prompt.metadata) for prompt in PROMPTS]
    table = prompts_to_table(plain).drop_columns(["completion", "sampling", "group_id"])
    pq.write_table(table, tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.parquet", np.arange(25)) == plain


@pytest.mark.parametrize("bit", [0, 5])
def test_no_flipped_byte_asks_something_else(tmp_path: Path, bit: int) -> None:
    path = save_prompts(PromptSet(prompts_to_table(PROMPTS), pa.table({}), {}), tmp_path)
    whole, rows = path.read_bytes(), np.array([0, 11, 24], np.int32)
    asked = [(prompt.messages, prompt.completion, prompt.sampling) for prompt in read_prompts(path, rows)]
    found = 0
    for at in np.random.default_rng(bit).permutation(len(whole))[:150]:
        data = bytearray(whole)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        try:
            assert [(p.messages, p.completion, p.sampling) for p in read_prompts(path, rows)] == asked
        except TraceStoreError as error:
            assert str(path) in str(error)
            found += 1
    assert found > 20


def test_saved_prompts_that_are_gone_are_told(tmp_path: Path) -> None:
    with pytest.raises(TraceStoreError, match=r"p\.parquet cannot be read \(No such file.*\): see that their disk is"):
        read_prompts(tmp_path / "p.parquet", np.array([0], np.int32))


def test_prompts_under_a_wrong_id_are_not_asked(tmp_path: Path) -> None:
    table = prompts_to_table(PROMPTS)
    wrong = table.set_column(0, "prompt_id", table["prompt_id"].take([1, 0, *range(2, 25)]))
    pq.write_table(wrong, tmp_path / "p.parquet")
    with pytest.raises(TraceStoreError, match="prompts do not match their ids"):
        read_prompts(tmp_path / "p.parquet", np.array([0], np.int32))
    assert read_prompts(tmp_path / "p.parquet", np.array([2], np.int32)) == [PROMPTS[2]]
