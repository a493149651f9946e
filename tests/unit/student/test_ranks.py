"""Several processes that train one student together: real ones, started by `accelerate launch`, on gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.errors import StudentError
from distill_data.student.arguments import shared_step
from distill_data.student.job import plan_student, train_and_measure
from distill_data.student_config import Train
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
TRAIN = {"steps": 6, "batch_size": 2, "learning_rate": 1e-2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Config:
    """A config whose corpus is there."""
    folder = tmp_path_factory.mktemp("ranks")
    student = {"model": {"from_config": LLAMA}, "train": TRAIN}
    prompts = write_prompts(folder / "p.jsonl", 24)
    settings = make_config(folder / "root", tiny_model, prompts, student=student, validation={"fraction": 0.2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.session.TeacherPool", InlinePool)
        planned = plan(settings)
        generate_missing(planned, lambda _: None)
        assemble_version(planned, lambda _: None)
    return settings


def changed(config: Config, root: Path, **train: Any) -> Config:
    """The same corpus under another root, so that no student is there, with other training settings."""
    root.mkdir()
    (root / "corpora").symlink_to(Path(config.root) / "corpora")
    tree = config.model_dump()
    tree["student"]["train"] |= train
    return Config.model_validate(tree | {"root": str(root)})


def alone(config: Config) -> Path:
    report = train_and_measure(plan_student(config, open_corpus(config.name, config.root)), lambda _: None)
    assert report is not None
    return Path(report.path)


def together(config: Config, tmp_path: Path, *options: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """`accelerate launch -m distill_data.cli train`, as on GPUs; with `--cpu` accelerate starts one process alone."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes), *options]
    launch += ["--main_process_port", "0", "-m", "distill_data.cli", "train", str(file), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
@pytest.mark.parametrize(
    "train",
    [
        {},
        {"batch_size": 1, "gradient_accumulation": 4, "look_every": 2},
        {"batching": "length_grouped", "gradient_accumulation": 2},
        {"batching": "packed", "early_stopping": {"every": 2, "patience": 2}},
    ],
    ids=["batch", "accumulated", "length_grouped", "packed"],
)
def test_two_processes_train_the_student_that_one_trains(config: Config, tmp_path: Path, train: dict[str, Any]) -> None:
    one = alone(changed(config, tmp_path / "one", **train))
    two_settings = changed(config, tmp_path / "two", **train)
    done = together(two_settings, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)  # of one process
    two = Path(report["path"])
    assert two.name == one.name
    assert weights(two).keys() == weights(one).keys()
    for name, values in weights(one).items():
        torch.testing.assert_close(weights(two)[name], values, atol=2e-5, rtol=1e-4)
    assert len(lines(two)) == len(lines(one))
    for ours, theirs in zip(lines(one), lines(two), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)  # losses over all tokens of a step, and the tokens seen
    left = sorted(entry.name for entry in two.parent.iterdir() if entry.suffix != ".lock")
    assert left == [two.name]
    assert sorted(entry.name for entry in two.iterdir()) == sorted(entry.name for entry in one.iterdir())
    again = together(two_settings, tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert not json.loads(again.stdout)["created"]


def test_a_steps_traces_are_shared_evenly_or_not_at_all() -> None:
    assert shared_step(Train(batch_size=8, gradient_accumulation=4), 2) == (8, 2)
    assert shared_step(Train(batch_size=8, gradient_accumulation=3), 4) == (2, 3)
    assert shared_step(Train(), 1) == (8, 1)
    with pytest.raises(StudentError, match="3 processes cannot share a step of 1 batches of 8 traces"):
        shared_step(Train(), 3)
