"""Tokens drawn inside real vLLM for sampled soft labels, against the full distributions of transformers."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from distill_data.errors import TeacherError
from distill_data.teachers.vllm_draws import Draws
from tests.engine.conftest import EASY, SAMPLES, Generated, generate
from tests.engine.test_generation import full_logprobs, supports
from tests.engine.test_scoring import score

pytestmark = pytest.mark.engine

DRAWS = 20
SAMPLED = {"kind": "sampled", "draws": DRAWS, "rounding": "float16"}


@pytest.fixture(scope="module")
def drawn(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """A float32 engine on the tiny model that draws its soft labels."""
    texts = [f"What is {n} + {n}?" for n in range(EASY)]
    return generate(tiny_model, texts, tmp_path_factory.mktemp("drawn"), dtype="float32", soft_labels=SAMPLED)


def check_draws(model: Path, rows: list[dict[str, Any]]) -> np.ndarray:
    """Kept tokens are different ones with the teacher's log-probabilities, all p >= 1 / DRAWS among them.

    Returns by how much each position's estimate of the teacher's entropy is off.
    """
    oracle = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    errors = []
    for row in rows:
        expected = full_logprobs(oracle, row)
        sampled = expected[np.arange(len(expected)), row["completion_token_ids"]]
        np.testing.assert_allclose(row["sampled_logprobs"], sampled, atol=1e-3)
        for (ids, logprobs), truth in zip(supports(row), expected, strict=True):
            assert 1 <= len(set(ids)) == len(ids) <= DRAWS
            assert (np.diff(logprobs) <= 0).all()
            np.testing.assert_allclose(logprobs, truth[ids], rtol=2**-10, atol=1e-3)
            assert not np.flatnonzero(np.delete(truth, ids) >= np.log(1 / DRAWS) + 1e-3).size
            weights = np.maximum(np.exp(truth[ids]), 1 / DRAWS)
            errors.append(np.exp(truth) @ truth - weights @ truth[ids])
    return np.array(errors)


def test_draws_are_the_teachers_and_stand_for_all_of_its_distribution(drawn: Generated) -> None:
    """A cut support of as many tokens has an entropy that is too small, everywhere."""
    errors = check_draws(drawn.model, drawn.completed)
    assert len(drawn.completed) == EASY * SAMPLES and len(errors) > 1000
    assert errors.std() > 0.1
    assert abs(errors.mean()) < 5 * errors.std() / np.sqrt(len(errors))


def test_every_trace_has_draws_of_its_own(drawn: Generated) -> None:
    """Samples of one prompt have the same distribution at their first token, where few offsets give the same tokens."""
    first: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    for row in drawn.completed:
        first[row["prompt_id"]].append(tuple(sorted(supports(row)[0][0])))
    distinct = [len(set(found)) for found in first.values()]
    assert len(distinct) == EASY and sum(distinct) > 0.75 * SAMPLES * EASY


@pytest.mark.long
def test_completions_that_are_scored_have_draws_too(tiny_model: Path, tmp_path: Path) -> None:
    pairs = [(f"What is {n}?", f"It is {n} or {n + 1} or maybe {n * n}.") for n in range(16)]
    scored = score(tiny_model, tmp_path / "root", pairs, soft_labels=SAMPLED)
    errors = check_draws(tiny_model, scored.completed)
    assert len(scored.completed) == 16 and len(errors) > 200
    assert errors.std() > 0.1
    assert abs(errors.mean()) < 5 * errors.std() / np.sqrt(len(errors))


def test_an_engine_that_samples_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.sample.sampler import Sampler

    monkeypatch.setattr(Sampler, "gather_logprobs", Sampler.gather_logprobs)  # put back after the test
    with pytest.raises(TeacherError, match=r"no tokens can be drawn for soft_labels\.kind: sampled"):
        Draws().check()
