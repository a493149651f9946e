"""A real `vllm serve` and an engine in a worker say the same of the same requests."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_data.errors import ModelError
from distill_data.models import resolve_model
from distill_data.records import Prompt
from distill_data.teacher_config import Sampling, Teacher
from distill_data.teacher_identity import identify_teacher
from distill_data.teachers.base import Completion, Request
from distill_data.teachers.server_teacher import ServerTeacher
from distill_data.teachers.vllm_engine import VllmTeacher
from tests.engine.conftest import FOREIGN, TOO_LONG, engine_of, exact_settings, generate_prompts
from tests.servers.conftest import SUPPORT, VllmServer, free_port

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.timeout(1200)]

TEXTS = [*(f"What is {n} + {n}?" for n in range(12)), FOREIGN, TOO_LONG]
NATS = 1e-3  # both compute in float32, in batches of other sizes
SOURCE = {"source": "dataset", "path": "none.jsonl", "prompt": "text", "name": "texts"}


def rows_of(model: Path, root: Path, engine: dict[str, Any], **teacher: Any) -> dict[str, dict[str, Any]]:
    """What a build's workers committed, by prompt."""
    settings = exact_settings(model, root, [SOURCE], engine=engine, **teacher)
    prompts = [Prompt([{"role": "user", "content": text}], "texts") for text in TEXTS]
    return {row["prompt_id"]: row for row in generate_prompts(settings, prompts).rows}


def through(server: VllmServer) -> dict[str, Any]:
    return {"servers": {"urls": [server.url]}, "max_num_seqs": 8}


def test_greedy_traces_are_those_of_an_engine_here(tiny_model: Path, server: VllmServer, tmp_path: Path) -> None:
    here = rows_of(tiny_model, tmp_path / "here", engine_of(max_num_seqs=16))
    there = rows_of(tiny_model, tmp_path / "there", through(server))
    assert here.keys() == there.keys() and len(here) == len(TEXTS)
    for prompt_id, row in here.items():
        other = there[prompt_id]
        for same in ("prompt_token_ids", "completion_token_ids", "finish_reason", "error", "completion"):
            assert row[same] == other[same], same
        np.testing.assert_allclose(row["sampled_logprobs"], other["sampled_logprobs"], atol=NATS)
        assert row["support_counts"] == other["support_counts"]
        np.testing.assert_allclose(row["support_logprobs"], other["support_logprobs"], rtol=2**-9, atol=NATS)
    assert sum(row["error"] == "prompt_too_long" for row in there.values()) == 1


def test_where_a_teacher_runs_is_no_part_of_its_id(tiny_model: Path, tmp_path: Path) -> None:
    here = exact_settings(tiny_model, tmp_path, [SOURCE]).teacher
    engine = {"servers": {"urls": ["http://gpu-1:8000/v1"]}}
    there = exact_settings(tiny_model, tmp_path, [SOURCE], engine=engine).teacher
    assert identify_teacher(here).teacher_id == identify_teacher(there).teacher_id


def completions(teacher: Any, requests: list[Request]) -> dict[str, Completion]:
    for request in requests:
        teacher.add(request)
    found: dict[str, Completion] = {}
    while len(found) < len(requests):
        found |= {completion.request_id: completion for completion in teacher.step()}
    return found


def answers_here(model: Path, settings: dict[str, Any], requests: list[Request]) -> dict[str, Completion]:
    """What an engine in this process answers."""
    return completions(VllmTeacher(model, Teacher.model_validate(settings)), requests)


@pytest.mark.parametrize("mode", ["score", "classify"])
def test_scores_and_labels_are_those_of_an_engine_here(tiny_model: Path, server: VllmServer, mode: str) -> None:
    labels = {"labels": {"one": "A", "two": "Big", "three": "Bit"}} if mode == "classify" else {}
    common = {"model": str(tiny_model), "dtype": "float32", "mode": mode, **labels}
    soft = {} if mode == "classify" else {"soft_labels": {"max_support": SUPPORT}}
    there = ServerTeacher(
        resolve_model(str(tiny_model)), Teacher.model_validate(common | soft | {"engine": through(server)})
    )
    tokenizer = there.tokenizer
    requests = []
    for number, text in enumerate(TEXTS[:4]):
        prompt, after = tokenizer(text)["input_ids"], tokenizer("Answer: 42")["input_ids"]
        scored = after if mode == "score" else None
        asked = [tokenizer(word)["input_ids"] for word in ("A", "Big", "Bit")] if mode == "classify" else None
        requests.append(Request(str(number), prompt, 0, Sampling(), scored, asked))
    settings = common | soft | {"engine": engine_of()}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:  # an engine takes the process that it is in
        expected = apart.submit(answers_here, tiny_model, settings, requests).result()
    found = completions(there, requests)
    for name, completion in found.items():
        assert completion.token_ids.tolist() == expected[name].token_ids.tolist()
        np.testing.assert_allclose(completion.sampled_logprobs, expected[name].sampled_logprobs, atol=NATS)
        np.testing.assert_allclose(completion.top_logprobs, expected[name].top_logprobs, atol=NATS)


def test_samples_repeat_with_their_seed(tiny_model: Path, server: VllmServer) -> None:
    settings = Teacher.model_validate({"model": str(tiny_model), "engine": through(server)})
    teacher = ServerTeacher(resolve_model(str(tiny_model)), settings)
    sampling = Sampling(temperature=1.0, max_tokens=20)
    prompt = teacher.tokenizer(TEXTS[0])["input_ids"]
    once, again, other = (
        completions(teacher, [Request("one", prompt, seed, sampling)])["one"].token_ids.tolist() for seed in (1, 1, 2)
    )
    assert once == again != other


def test_flags_that_are_missing_are_named(tiny_model: Path, server: VllmServer) -> None:
    wide = {"model": str(tiny_model), "soft_labels": {"max_support": SUPPORT + 1}, "engine": through(server)}
    with pytest.raises(ModelError, match=f"--max-logprobs {SUPPORT + 1}"):
        ServerTeacher(resolve_model(str(tiny_model)), Teacher.model_validate(wide))
    nowhere = {"servers": {"urls": [f"http://127.0.0.1:{free_port()}/v1", server.url], "served_model": "other"}}
    named = Teacher.model_validate({"model": str(tiny_model), "engine": nowhere})
    with pytest.raises(ModelError, match="and no other: if that is the teacher"):
        ServerTeacher(resolve_model(str(tiny_model)), named)
