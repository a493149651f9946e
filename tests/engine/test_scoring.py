"""Completions that exist, scored by real vLLM, against transformers and against what the same engine generated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_data.records import Prompt
from tests.engine.conftest import (
    MAX_MODEL_LEN,
    SAMPLES,
    SUPPORT,
    Generated,
    engine_of,
    exact_settings,
    generate_prompts,
)
from tests.engine.test_generation import full_logprobs, supports

pytestmark = pytest.mark.engine

CHUNK = 64  # tokens that the engine reads in one step: longer prompts take several
LONG = ("Z Q " * 20, "7 X " * 25)  # prompt and completion are both longer than CHUNK
ENDED = ("How does it end?", "Like this.<|im_end|>")
TOO_MUCH = ("Is it long?", "12 " * 400)
FITS = ("Fill it.", "Z" * 230)  # with 24 prompt tokens and EOS, one token short of MAX_MODEL_LEN
SPILLS = ("Fill it.", "Z" * 231)


def score(model: Path, root: Path, pairs: list[tuple[str, str]], **teacher: Any) -> Generated:
    """Let a model score (prompt, completion) pairs."""
    source = {"source": "dataset", "path": "none.jsonl", "name": "pairs", "prompt": "prompt", "completion": "answer"}
    settings = exact_settings(model, root, [source], mode="score", **teacher)
    prompts = [Prompt([{"role": "user", "content": text}], "pairs", completion=answer) for text, answer in pairs]
    return generate_prompts(settings, prompts)


def check_against_transformers(model: Path, rows: list[dict[str, Any]]) -> int:
    """Both compute in float32, in other kernels; storing rounds by at most 2^-7. Returns how many entries it saw."""
    oracle = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    checked = 0
    for row in rows:
        expected = full_logprobs(oracle, row)
        sampled = expected[np.arange(len(expected)), row["completion_token_ids"]]
        np.testing.assert_allclose(row["sampled_logprobs"], sampled, atol=1e-3)
        assert row["support_counts"] == [SUPPORT] * len(expected)
        for (ids, logprobs), truth in zip(supports(row), expected, strict=True):
            assert len(set(ids)) == SUPPORT
            np.testing.assert_allclose(logprobs, truth[ids], rtol=2**-7, atol=1e-3)
            assert truth[ids].min() >= np.delete(truth, ids).max() - 1e-3
            checked += SUPPORT
    return checked


def written_and_read(tokenizer: Any, ids: list[int]) -> str:
    """The longest beginning of a completion whose text is read back as the same ids."""
    for length in range(len(ids), 0, -1):
        text = tokenizer.decode(ids[:length], clean_up_tokenization_spaces=False)
        if text.strip() and tokenizer(text, add_special_tokens=False)["input_ids"] == ids[:length]:
            return text
    return ""


@dataclass(frozen=True)
class Scored:
    """Completions of the generating engine, and others, scored by the same model."""

    made: Generated
    again: dict[tuple[str, str], dict[str, Any]]  # what was generated, by prompt and by how much of its text is scored

    def of(self, text: str, answer: str) -> dict[str, Any]:
        """The row of one pair."""
        name = Prompt([{"role": "user", "content": text}], "pairs", completion=answer).prompt_id
        (row,) = [row for row in self.made.rows if row["prompt_id"] == name]
        return row


@pytest.fixture(scope="module")
def scored(generated: Generated, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """A scoring engine that reads at most CHUNK tokens a step."""
    tokenizer = AutoTokenizer.from_pretrained(generated.model)
    texts = {prompt.prompt_id: prompt.messages[0]["content"] for prompt in generated.prompts}
    again: dict[tuple[str, str], dict[str, Any]] = {}
    for row in generated.completed:
        if answer := written_and_read(tokenizer, row["completion_token_ids"]):
            again[texts[row["prompt_id"]], answer] = row
    engine = engine_of(max_num_seqs=16, options={"max_num_batched_tokens": CHUNK})
    pairs = [*again, LONG, ENDED, TOO_MUCH, FITS, SPILLS]
    return Scored(score(generated.model, tmp_path_factory.mktemp("scored"), pairs, engine=engine), again)


def test_scored_soft_labels_are_the_teachers_distribution(scored: Scored) -> None:
    assert check_against_transformers(scored.made.model, scored.made.completed) > 20_000


def test_a_scored_completion_is_stored_as_it_was_given_and_ends_with_eos(scored: Scored) -> None:
    tokenizer = AutoTokenizer.from_pretrained(scored.made.model)
    answers = {prompt.prompt_id: prompt.completion or "" for prompt in scored.made.prompts}
    for row in scored.made.completed:
        answer = answers[row["prompt_id"]].removesuffix(tokenizer.eos_token)
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        assert row["completion_token_ids"] == [*ids, tokenizer.eos_token_id]
        assert (row["completion"], row["finish_reason"]) == (answer, "stop")
        assert len(row["sampled_logprobs"]) == row["completion_tokens"] == len(ids) + 1
    assert scored.of(*ENDED)["completion"] == "Like this."


def test_scoring_what_the_engine_generated_gives_the_labels_that_it_gave(scored: Scored) -> None:
    """The generating engine keeps what has at least .001, the scoring one the top 64."""
    compared = 0
    for pair, before in scored.again.items():
        now = scored.of(*pair)
        tokens = min(now["completion_tokens"] - 1, before["completion_tokens"])  # the last one is EOS, added to score
        assert tokens and now["completion_token_ids"][:tokens] == before["completion_token_ids"][:tokens]
        np.testing.assert_allclose(now["sampled_logprobs"][:tokens], before["sampled_logprobs"][:tokens], atol=1e-3)
        for (ids, logprobs), (kept_ids, kept) in zip(supports(now)[:tokens], supports(before), strict=False):
            common, here, there = np.intersect1d(ids, kept_ids, return_indices=True)
            assert len(common) >= len(kept_ids) - 1  # of two that are nearly alike, either may be the 64th
            np.testing.assert_allclose(logprobs[here], kept[there], rtol=2**-6, atol=1e-3)
            compared += len(common)
    assert compared > 2_000


def test_every_completion_of_a_prompt_is_scored(scored: Scored) -> None:
    completions = Counter(prompt.group_id for prompt in scored.made.prompts)
    assert max(completions.values()) >= SAMPLES - 1
    assert {row["prompt_id"] for row in scored.made.rows} == {prompt.prompt_id for prompt in scored.made.prompts}
    assert len(scored.made.rows) == len(scored.made.prompts)


def test_what_does_not_fit_the_context_is_not_scored_and_the_rest_is(scored: Scored) -> None:
    errors = {row["prompt_id"]: row["error"] for row in scored.made.rows if row["error"]}
    fits, spills, too_much = (scored.of(*pair) for pair in (FITS, SPILLS, TOO_MUCH))
    assert errors == {row["prompt_id"]: "prompt_too_long" for row in (spills, too_much)}
    assert spills["completion_token_ids"] == spills["support_ids"] == []
    detail = f"24 prompt tokens and 232 to score do not fit a context of {MAX_MODEL_LEN}: raise engine.max_model_len"
    assert spills["error_detail"] == detail
    assert (fits["prompt_tokens"], fits["completion_tokens"]) == (24, 231)
    assert spills["prompt_tokens"] == MAX_MODEL_LEN  # so that it is planned again in a larger context, and not before


def test_prompt_and_completion_longer_than_a_step_keep_their_rows_in_order(scored: Scored) -> None:
    row = scored.of(*LONG)
    assert min(row["prompt_tokens"], row["completion_tokens"]) > CHUNK
    assert check_against_transformers(scored.made.model, [row]) == SUPPORT * row["completion_tokens"]


@pytest.mark.long
def test_entry_t_of_a_scored_completion_describes_its_token_t(counting: Path, tmp_path: Path) -> None:
    """Every entry must name the token after the one before it: its own where the completion counts, too.

    This vocabulary is searched by blocks.
    """
    pairs = [("!", "\"#$%&'()"), ("!", '"#%&'), ("A", "BCD")]
    made = score(counting, tmp_path, pairs, prompt_format="text")
    for (text, answer), row in zip(pairs, made.rows, strict=True):
        prompt, completion = row["prompt_token_ids"], row["completion_token_ids"]
        assert (len(prompt), len(completion)) == (len(text), len(answer) + 1)
        assert [int(ids[0]) for ids, _ in supports(row)] == [token + 1 for token in [*prompt, *completion[:-1]]]
    counted = np.exp(made.rows[0]["sampled_logprobs"])
    assert counted[:-1].min() > 0.9 and counted[-1] < 0.01  # EOS is not what comes next
    assert np.flatnonzero(np.exp(made.rows[1]["sampled_logprobs"]) < 0.01).tolist() == [2, 4]
    assert check_against_transformers(counting, made.rows) == SUPPORT * (9 + 5 + 4)
