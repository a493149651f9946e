from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from distill_data.prompts.snapshot import read_prompts
from distill_data.records import Prompt, prompts_to_table

PROMPTS = [
    Prompt([{"role": "user", "content": f"{number} 你好"}], "s", str(number), {"row": number}) for number in range(25)
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
