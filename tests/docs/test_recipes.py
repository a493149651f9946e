"""The recipes for GPUs, planned without one: hub datasets and models are replaced by folders of the same shape.

`--set` changes nothing but paths: subsets, splits and columns are those that the recipe names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from distill_data.cli import app
from distill_data.config import Config
from distill_data.config_file import load_config
from distill_data.filters.thresholds import active
from tests.docs.conftest import PROJECT

RECIPES = ["math_qwen3_4b", "multi_source_mix", "r1_distill_llama_8b", "r1_distill_qwen_7b"]
ASKED = "A farmer has {n} hens and each of them lays two eggs every day: how many eggs does she collect in a week?"
HELD = "Janet's ducks lay 16 eggs per day and she eats three of them for breakfast before selling the rest for $2 each."
COLUMNS: dict[str, Any] = {"tests": ["assert f(1) == 2"], "choices": ["one", "two"]}


def save(folder: Path, subset: str | None, split: str, columns: dict[str, list[Any]]) -> None:
    """A dataset as it lies on the hub: its card names the subset's files."""
    folder.mkdir(parents=True, exist_ok=True)
    name = subset or "default"
    card = f"configs:\n- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {name}/{split}-*.parquet\n"
    (folder / "README.md").write_text(f"---\n{card}---\n", encoding="utf-8")
    (folder / name).mkdir()
    pq.write_table(pa.table(columns), folder / name / f"{split}-0.parquet")


def texts(number: int) -> list[str]:
    """Five prompts of a source; one of them recites a benchmark."""
    return [*(ASKED.format(n=100 * number + row) + " word" * 9 * row for row in range(4)), f"Question {number}: {HELD}"]


def stand_in(config: Config, folder: Path, model: Path) -> list[str]:
    """Make what the recipe reads, below `folder`; the overrides that point there."""
    overrides = [f"teacher.model={model}", f"root={folder / 'data'}"]
    for number, source in enumerate(config.prompts):
        assert source.source == "dataset" and source.prompt is not None
        columns: dict[str, list[Any]] = {source.prompt: texts(number)}
        columns |= {} if source.reference is None else {source.reference: ["14"] * 5}
        columns |= {name: [COLUMNS[name]] * 5 for name in source.metadata}
        if source.path.endswith(".jsonl"):
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            (folder / source.path).parent.mkdir(exist_ok=True)
            (folder / source.path).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        else:
            save(folder / f"source{number}", source.subset, source.split or "train", columns)
            overrides.append(f"prompts.{number}.path={folder / f'source{number}'}")
    for number, benchmark in enumerate(config.decontaminate.benchmarks):
        held = {column: [HELD if number == 0 else "What is 2 + 2?"] for column in benchmark.text}
        save(folder / f"benchmark{number}", benchmark.subset, benchmark.split, held)
        overrides.append(f"decontaminate.benchmarks.{number}.path={folder / f'benchmark{number}'}")
        overrides.append(f"decontaminate.benchmarks.{number}.name=benchmark{number}")
    return [part for override in overrides for part in ("--set", override)]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_plan_without_a_gpu(
    name: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = PROJECT / "configs" / f"{name}.yaml"
    config = load_config(recipe)
    overrides = stand_in(config, tmp_path, tiny_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["plan", str(recipe), *overrides, "--json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    sources = len(config.prompts)
    assert (plan["prompts"], plan["dropped_prompts"]) == (4 * sources, {"contaminated": sources})
    own = [source.sampling.samples if source.sampling else None for source in config.prompts]
    assert plan["wanted_traces"] == sum(4 * (samples or config.teacher.sampling.samples) for samples in own)
    assert plan["estimate"]["tokens"] > 0
    assert active(config.filters) and config.keep.passed_only and config.judges


def test_a_hub_that_cannot_be_reached_is_one_line_that_names_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["doctor", str(PROJECT / "configs" / "math_qwen3_4b.yaml"), "--json"])
    (check,) = json.loads(done.stdout)["checks"]
    assert done.exit_code and (check["name"], check["ok"]) == ("prompts", False)
    assert "source 'gsm8k': dataset 'openai/gsm8k' cannot be loaded" in check["detail"]
    assert check["detail"].endswith("check path:, subset:, split: and revision:") and "\n" not in check["detail"]
