"""What real vLLM says, against transformers on the same token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engine.conftest import (
    EASY,
    ENGINE,
    FOREIGN,
    MAX_MODEL_LEN,
    MAX_TOKENS,
    SAMPLES,
    TIGHT,
    TOO_LONG,
    Generated,
    generate,
)
from tests.tiny_model import make_counting_model, make_tiny_model

pytestmark = pytest.mark.engine


def full_logprobs(model: Any, row: dict[str, Any]) -> np.ndarray:
    """Log-probabilities over the full vocabulary, one row per completion token: float64 [T, V]."""
    prompt, completion = row["prompt_token_ids"], row["completion_token_ids"]
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + completion])).logits[0].double()
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].numpy()


def supports(row: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kept ids and log-probabilities, position by position."""
    cuts = np.cumsum(row["support_counts"])[:-1]
    ids, logprobs = np.array(row["support_ids"]), np.array(row["support_logprobs"], np.float64)
    return list(zip(np.split(ids, cuts), np.split(logprobs, cuts), strict=True))


def test_soft_labels_are_the_teachers_distribution(generated: Generated) -> None:
    """Both sides compute in float32; kernels differ by under 1e-3 nat here, and storing rounds by at most 2^-7."""
    model = AutoModelForCausalLM.from_pretrained(generated.model, dtype=torch.float32)
    checked = 0
    for row in generated.completed:
        expected = full_logprobs(model, row)
        sampled = expected[np.arange(len(expected)), row["completion_token_ids"]]
        np.testing.assert_allclose(row["sampled_logprobs"], sampled, atol=1e-3)
        for (ids, logprobs), truth in zip(supports(row), expected, strict=True):
            np.testing.assert_allclose(logprobs, truth[ids], rtol=2**-7, atol=1e-3)
            assert abs(logprobs[0] - truth.max()) <= 2**-7 * abs(truth.max()) + 1e-3
            left_out = np.delete(truth, ids)
            assert len(ids) == 64 or left_out.max() < np.log(0.001) + 1e-3
            checked += len(ids)
    assert checked > 10_000


def test_ids_decode_to_the_stored_text_and_eos_is_among_them(generated: Generated) -> None:
    tokenizer = AutoTokenizer.from_pretrained(generated.model)
    stopped = [row for row in generated.completed if row["finish_reason"] == "stop"]
    assert stopped, "no trace ended by itself: the test says nothing about EOS"
    for row in generated.completed:
        ids = row["completion_token_ids"]
        if row["finish_reason"] == "stop":
            assert ids[-1] == tokenizer.eos_token_id
            ids = ids[:-1]
        assert tokenizer.eos_token_id not in ids
        assert row["completion"] == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        assert row["completion_tokens"] == len(row["completion_token_ids"]) == len(row["sampled_logprobs"])


def test_finish_reasons_say_what_cut_a_trace(generated: Generated) -> None:
    for row in generated.completed:
        tokens, room = row["completion_tokens"], MAX_MODEL_LEN - row["prompt_tokens"]
        if row["finish_reason"] == "length":
            assert tokens == MAX_TOKENS
        if row["finish_reason"] == "context":
            assert tokens == room < MAX_TOKENS
    assert {row["finish_reason"] for row in generated.of(TIGHT)} <= {"context", "stop"}
    assert "context" in {row["finish_reason"] for row in generated.rows}


def test_a_prompt_longer_than_the_context_is_an_error_row_and_the_rest_goes_on(generated: Generated) -> None:
    refused = generated.of(TOO_LONG)
    assert [row["error"] for row in refused] == ["prompt_too_long"] * SAMPLES
    assert all(row["completion_token_ids"] == [] and row["support_ids"] == [] for row in refused)
    assert f"do not fit a context of {MAX_MODEL_LEN}" in refused[0]["error_detail"]
    assert len(generated.completed) == len(generated.rows) - SAMPLES


def test_prompts_in_any_script_reach_the_teacher_byte_for_byte(generated: Generated) -> None:
    tokenizer = AutoTokenizer.from_pretrained(generated.model)
    for row in generated.of(FOREIGN):
        rendered = tokenizer.decode(row["prompt_token_ids"], clean_up_tokenization_spaces=False)
        assert rendered == f"<|im_start|>user\n{FOREIGN}<|im_end|>\n<|im_start|>assistant\n"


def test_samples_of_a_prompt_differ(generated: Generated) -> None:
    for n in range(EASY):
        completions = {tuple(row["completion_token_ids"]) for row in generated.of(f"What is {n} + {n}?")}
        assert len(completions) == SAMPLES


@pytest.mark.long
def test_prompts_prefilled_in_chunks_leave_the_engine_alive_and_are_answered(tmp_path: Path, tiny_model: Path) -> None:
    """Every prompt is longer than a step of the engine takes, and every request has a seed."""
    made = generate(
        tiny_model,
        [f"{n} " * 40 for n in range(4)],
        tmp_path / "root",
        dtype="float32",
        engine={**ENGINE, "options": {"max_num_batched_tokens": 32}},
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    assert made.report.restarts == 0 and len(made.completed) == 4 * SAMPLES
    assert min(row["prompt_tokens"] for row in made.rows) > 32
    for row in made.completed:
        expected = full_logprobs(model, row)
        sampled = expected[np.arange(len(expected)), row["completion_token_ids"]]
        np.testing.assert_allclose(row["sampled_logprobs"], sampled, atol=1e-3)


def test_entry_t_describes_completion_token_t(tmp_path: Path) -> None:
    """In this model token n is always followed by n + 1, so every entry must name its own token first."""
    model = make_counting_model(tmp_path / "counting")
    sampling = {"samples": 1, "temperature": 0, "max_tokens": 30}
    made = generate(model, ["count!"], tmp_path / "root", sampling=sampling, dtype="float32")
    row = made.rows[0]
    start = row["prompt_token_ids"][-1]
    assert row["completion_token_ids"] == [start + 1 + step for step in range(len(row["completion_token_ids"]))]
    assert len(row["completion_token_ids"]) == 30
    assert [int(ids[0]) for ids, _ in supports(row)] == row["completion_token_ids"]
    assert min(float(np.exp(logprobs[0])) for _, logprobs in supports(row)) > 0.9


def test_logits_that_are_not_finite_are_an_error_row_not_a_soft_label(tmp_path: Path) -> None:
    """vLLM itself says nothing about NaN logits."""
    model = make_tiny_model(tmp_path / "broken", broken=True)
    made = generate(model, ["one", "two"], tmp_path / "root", dtype="float32")
    assert [row["error"] for row in made.rows] == ["nonfinite_logprobs"] * (2 * SAMPLES)
    assert all(row["sampled_logprobs"] == [] for row in made.rows)
