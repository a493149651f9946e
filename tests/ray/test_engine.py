"""A real vLLM engine on a Ray node says what one in a process of this machine says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_data.records import Prompt
from tests.engine.conftest import Generated, engine_of, exact_settings, generate_prompts
from tests.ray.conftest import REAL_TOKENIZER
from tests.ray.nodes import Nodes

pytestmark = [pytest.mark.engine, pytest.mark.long]


def generated(model: Path, root: Path, **engine: Any) -> Generated:
    source = {"source": "dataset", "path": "none.jsonl", "prompt": "text", "name": "texts"}
    settings = exact_settings(model, root, [source], engine=engine_of(max_num_seqs=8, **engine))
    prompts = [Prompt([{"role": "user", "content": f"What is {number} + {number}?"}], "texts") for number in range(6)]
    return generate_prompts(settings, prompts)


def test_greedy_traces_and_their_distributions_are_the_same(
    tmp_path: Path, tiny_model: Path, cluster: Nodes, in_workers: Callable[[str], object]
) -> None:
    in_workers(REAL_TOKENIZER)
    here = generated(tiny_model, tmp_path / "here")
    there = generated(tiny_model, tmp_path / "ray", ray={"address": cluster.address, "num_gpus": 0.0})
    assert len(there.completed) == 6 and there.report.load_seconds > 0
    for ours, theirs in zip(here.rows, there.rows, strict=True):
        for column in ("prompt_id", "prompt_token_ids", "completion_token_ids", "finish_reason", "support_counts"):
            assert ours[column] == theirs[column]
        np.testing.assert_allclose(ours["sampled_logprobs"], theirs["sampled_logprobs"], atol=1e-4)
        np.testing.assert_allclose(ours["support_logprobs"], theirs["support_logprobs"], atol=2e-2)
