from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill_data.student.engine import fitting_engine, small_engine
from distill_data.teacher_config import Engine


@pytest.mark.parametrize(
    ("asked", "has", "gets"), [(4096, 2048, 2048), (1024, 2048, 1024), (None, 2048, 2048), (64, None, 64)]
)
def test_a_student_answers_in_a_context_that_it_has(
    asked: int | None, has: int | None, gets: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({} if has is None else {"max_position_embeddings": has}))
    engine = Engine(max_model_len=asked, tensor_parallel_size=4)
    assert fitting_engine(engine, tmp_path) == Engine(max_model_len=gets, tensor_parallel_size=4)
    assert small_engine(engine, tmp_path) == Engine(max_model_len=gets)
