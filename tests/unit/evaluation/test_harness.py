"""A real task of the real harness, its data in a file; `make install-dev` brings the harness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_data.errors import StudentError
from distill_data.evaluate_config import Evaluate
from distill_data.evaluation import harness
from distill_data.evaluation.entrants import Entrant
from distill_data.models import resolve_model
from tests.pool.replay_job import make_config, write_prompts
from tests.tiny_model import make_counting_model

pytest.importorskip("lm_eval")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """After a letter, the next one or another: a model that counts on is right every time."""
    rows = [{"question": one, "next": chr(ord(one) + 1), "other": chr(ord(one) + 4)} for one in "BCDEFG"]
    data = tmp_path / "letters.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        "task": "letters",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{[next, other]}}",
        "doc_to_target": 0,
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    file = tmp_path / "letters.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


@pytest.fixture
def entrant(tmp_path: Path) -> Entrant:
    model = make_counting_model(tmp_path / "counting")
    config = make_config(tmp_path / "root", model, write_prompts(tmp_path / "p.jsonl", 1), teacher={"dtype": "float32"})
    return Entrant("student", "student", config, resolve_model(str(model)), model)


def test_a_task_from_a_file_is_done_once(
    task: Path, entrant: Entrant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    evaluate = Evaluate(lm_eval=[str(task)])
    done = harness.task_figures(entrant, evaluate)
    assert done["letters"]["acc"] == 1.0 and set(done["letters"]) == {"acc", "acc_stderr"}

    def fail(*_: Any) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(harness, "_done", fail)
    assert harness.task_figures(entrant, evaluate) == done
    with pytest.raises(AssertionError, match="done again"):
        harness.task_figures(entrant, Evaluate(lm_eval=[str(task)], lm_eval_limit=2))


def test_an_unknown_task_is_one_line(entrant: Entrant) -> None:
    with pytest.raises(StudentError, match=r"cannot do 'no_such_task' with student \(.*\): check its name"):
        harness.task_figures(entrant, Evaluate(lm_eval=["no_such_task"]))
