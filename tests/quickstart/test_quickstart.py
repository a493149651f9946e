"""The quickstart from end to end through the command line: real vLLM, real Prefect, real training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset

from distill_data import load_config, open_corpus

pytestmark = [pytest.mark.quickstart, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
NOISE = re.compile(r"Traceback|Warning|WARNING|ERROR|Exception|deprecated", re.IGNORECASE)


@dataclass(frozen=True)
class Ran:
    """What a finished command said."""

    report: dict[str, Any]
    errors: str
    root: Path


def run_quickstart(root: Path) -> Ran:
    command = [
        sys.executable,
        "-m",
        "distill_data.cli",
        "run",
        "configs/quickstart.yaml",
        "--json",
        "--set",
        f"root={root}",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    return Ran(json.loads(done.stdout), done.stderr, root)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_quickstart(tmp_path_factory.mktemp("quickstart") / "data")


def test_it_builds_trains_and_measures(first: Ran) -> None:
    build, student = first.report["build"], first.report["student"]
    assert build["corpus"] == "quickstart@v1" and build["created"]
    assert build["generated_traces"] > 300 and build["tokens_per_second"] > 0
    accounted_for = build["rows"] + sum(build["dropped"].values())
    assert accounted_for == build["generated_traces"] + build["dropped"]["duplicate_prompt"]
    assert 0.05 < build["pass_rate"] < 0.6  # the teacher is weak on purpose: rejection sampling has work to do
    assert build["rows"] > 20 and build["validation"] > 0
    assert build["soft_label_bytes_per_token"] < 120
    assert student["last_loss"] < 0.5 * student["first_loss"]
    assert student["after"]["kl"] < 0.6 * student["before"]["kl"]
    assert student["after"]["top1_agreement"] > student["before"]["top1_agreement"]


def test_a_good_run_is_quiet(first: Ran) -> None:
    assert NOISE.findall(first.errors) == []
    assert "generate: " in first.errors


def test_both_families_load_with_plain_datasets_row_by_row(first: Ran) -> None:
    folder = Path(first.report["build"]["path"])
    for split in ("train", "validation"):
        families = [
            load_dataset("parquet", data_files=str(folder / family / f"{split}-*.parquet"), split="train")
            for family in ("traces", "soft_labels")
        ]
        light, heavy = families
        assert light["trace_id"] == heavy["trace_id"] and len(light) == first.report["build"][split]
        assert all(light["passed"])
    assert not set(load_dataset(str(folder), "traces", split="train")["prompt_id"]) & set(
        load_dataset(str(folder), "traces", split="validation")["prompt_id"]
    )


def test_soft_labels_agree_with_transformers(first: Ran) -> None:
    """Two implementations of the same float32 layers."""
    import torch
    from transformers import AutoModelForCausalLM

    from distill_data.models import local_model_folder, resolve_model

    settings = load_config(REPOSITORY / "configs" / "quickstart.yaml")
    folder = local_model_folder(resolve_model(settings.teacher.model))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = open_corpus("quickstart", first.root).table("soft_labels").slice(0, 8).to_pylist()
    differences = []
    for row in rows:
        prompt, completion = row["prompt_token_ids"], row["completion_token_ids"]
        with torch.inference_mode():
            logprobs = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logprobs[torch.arange(len(completion)), torch.tensor(completion)].numpy()
        differences.append(np.abs(np.array(row["sampled_logprobs"]) - expected))
    assert np.concatenate(differences).max() < 1e-2


def test_running_it_again_does_nothing(first: Ran) -> None:
    again = run_quickstart(first.root)
    build = again.report["build"]
    assert not build["created"] and build["generated_traces"] == 0 and build["engine_seconds"] == 0
    assert build["digest"] == first.report["build"]["digest"]
    assert not again.report["student"]["created"]
    assert again.report["student"]["after"] == first.report["student"]["after"]
