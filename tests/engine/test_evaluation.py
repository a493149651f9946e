"""Real engines answer as teacher, student and baseline: a model that counts on, one that hardly learnt, and a copy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.evaluation.answers import judge_answers, plan_answers
from distill_data.evaluation.asked import held_out_prompts
from distill_data.evaluation.cost import timed, weights_cost
from distill_data.evaluation.entrants import entrants
from distill_data.servers_config import Servers
from distill_data.student.job import plan_student, train
from tests.engine.conftest import engine_of
from tests.pool.replay_job import plan
from tests.tiny_model import make_counting_model

pytestmark = [pytest.mark.engine, pytest.mark.long]

COUNTS_ON = (
    "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}<|im_start|>"
    "{{ messages[-1]['content'][-1] }}"
)
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip


def settings(tmp_path: Path) -> Config:
    """After a digit comes the next one; the judge wants it first."""
    teacher, copy = (make_counting_model(tmp_path / name, chat_template=COUNTS_ON) for name in ("teacher", "copy"))
    rows = [{"question": f"{word} {digit}", "answer": f"{digit + 1}.*"} for digit in range(9) for word in "abc"]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sampling = {"temperature": 0.0, "max_tokens": 8}
    engine = engine_of(max_num_seqs=8)
    tree: dict[str, Any] = {
        "name": "counted",
        "root": str(tmp_path / "data"),
        "prompts": [{"source": "dataset", "path": str(prompts), "prompt": "question", "reference": "answer"}],
        "teacher": {"model": str(teacher), "dtype": "float32", "sampling": sampling, "engine": engine},
        "judge": {"verifier": "regex"},
        "filters": {"truncated": False},
        "validation": {"fraction": 0.3},
        "student": {
            "model": {"from_config": LLAMA},
            "train": {"steps": 2, "batch_size": 4},
            "evaluate": {"dtype": "float32", "baselines": [{"name": "copy", "model": str(copy)}]},
        },
    }  # fmt: skip
    return Config.model_validate(tree)


def test_engines_answer_as_each_model_and_are_timed(tmp_path: Path) -> None:
    config = settings(tmp_path)
    build, made = generate_missing(plan(config), lambda _: None)
    assemble_version(build, lambda *_: None)
    job = plan_student(config, open_corpus("counted", config.root))
    train(job, lambda _: None)
    prompts = held_out_prompts(config, job.corpus, 256)
    assert 3 <= len(prompts.table) < 27 == made.traces
    answered, generated = {}, {}
    for one in entrants(job):
        planned, report = generate_missing(plan_answers(one, prompts), lambda _: None)
        answered[one.name], generated[one.name] = judge_answers(planned), report.traces
    assert generated == {"teacher": 0, "student": len(prompts.table), "copy": len(prompts.table)}
    passed = {name: answers.passed.mean() for name, answers in answered.items()}
    assert passed["teacher"] == passed["copy"] == 1.0 and passed["student"] < 0.5
    assert answered["teacher"].cut == 1.0 and answered["copy"].mean_tokens == 8
    student = entrants(job)[1]
    cost = timed(weights_cost(student), student, prompts, 0.5, verbose=False)
    assert cost.speed is not None and cost.speed.tokens_per_second > 50 and cost.speed.peak_memory_bytes > 1e8
    assert cost.parameters == json.loads((job.folder / "training.json").read_text())["parameters"]
    assert cost.bytes > 4 * cost.parameters and cost.dtype == "float32"
    engine = config.teacher.engine.model_copy(update={"servers": Servers(urls=["http://gpu-1:8000/v1"])})
    served = config.model_copy(update={"teacher": config.teacher.model_copy(update={"engine": engine})})
    teacher, *others = entrants(replace(job, config=served))
    assert teacher.config.teacher.engine.servers is not None
    assert [one.config.teacher.engine.servers for one in others] == [None, None]
    assert timed(cost, teacher, prompts, 0.5, verbose=False) == cost
