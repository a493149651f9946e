"""A recipe for GPUs planned against a hub on loopback: the names that it gives, read by the real clients."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from distill_data.config import Config
from distill_data.config_file import load_config
from tests.docs.test_recipes import HELD, texts
from tests.hub.conftest import Run
from tests.hub.server import File, Hub, Repo, Tree

RECIPE = Path(__file__).parents[2] / "configs" / "math_qwen3_4b.yaml"
Columns = dict[str, list[Any]]


def datasets_of(config: Config) -> dict[str, dict[tuple[str, str], Columns]]:
    """What the recipe reads, by name, then by subset and split."""
    found: dict[str, dict[tuple[str, str], Columns]] = defaultdict(dict)
    for number, source in enumerate(config.prompts):
        assert source.source == "dataset" and source.prompt is not None and source.reference is not None
        columns = {source.prompt: texts(number), source.reference: ["#### 14"] * 5}
        found[source.path][source.subset or "default", source.split or "train"] = columns
    for number, benchmark in enumerate(config.decontaminate.benchmarks):
        held = {column: [HELD if number == 0 else "What is 2 + 2?"] for column in benchmark.text}
        found[benchmark.path][benchmark.subset or "default", benchmark.split] = held
    return found


def dataset(tables: dict[tuple[str, str], Columns]) -> Repo:
    """A dataset's repository: Parquet files, and a card that says which subset and split each is."""
    tree: Tree = {}
    splits: dict[str, list[dict[str, str]]] = defaultdict(list)
    for (subset, split), columns in tables.items():
        sink = io.BytesIO()
        pq.write_table(pa.table(columns), sink)
        tree[f"{subset}/{split}-00000-of-00001.parquet"] = File(sink.getvalue(), lfs=True)
        splits[subset].append({"split": split, "path": f"{subset}/{split}-*"})
    card = {"configs": [{"config_name": name, "data_files": files} for name, files in splits.items()]}
    tree["README.md"] = File(f"---\n{yaml.safe_dump(card)}---\n".encode(), lfs=False)
    return with_commit(tree)


def model(folder: Path) -> Repo:
    """A model's repository."""
    return with_commit(
        {
            file.name: File(file.read_bytes(), file.suffix == ".safetensors")
            for file in folder.iterdir()
            if file.is_file()
        }
    )


def with_commit(tree: Tree) -> Repo:
    repo = Repo(private=False)
    repo.add(tree)
    return repo


def test_a_recipe_plans_from_the_hub_it_names(hub: Hub, run: Run, tiny_model: Path, tmp_path: Path) -> None:
    config = load_config(RECIPE)
    for name, tables in datasets_of(config).items():
        hub.repos[name] = dataset(tables)
    hub.repos[config.teacher.model] = model(tiny_model)
    assert {*hub.repos} == {"openai/gsm8k", "HuggingFaceH4/MATH-500", "Qwen/Qwen3-4B"}
    done = run("-m", "distill_data.cli", "plan", str(RECIPE), "--set", f"root={tmp_path}", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    plan = json.loads(done.stdout)
    assert (plan["prompts"], plan["dropped_prompts"], plan["wanted_traces"]) == (4, {"contaminated": 1}, 16)
    read = [request for request in hub.requests if request.endswith(".parquet")]
    for name in ("openai/gsm8k", "HuggingFaceH4/MATH-500"):
        assert any(f"/datasets/{name}/resolve/{hub.repos[name].head}/" in request for request in read), name
    assert "GET /api/models/Qwen/Qwen3-4B" in hub.requests  # the commit is a part of the teacher's id
    assert not any("/commit/" in request or request.startswith("PUT") for request in hub.requests)


def test_a_model_comes_from_the_hub_whole(hub: Hub, run: Run, tiny_model: Path) -> None:
    hub.repos["Qwen/Qwen3-4B"] = model(tiny_model)
    code = (
        "from distill_data.models import load_tokenizer, local_model_folder, resolve_model\n"
        "source = resolve_model('Qwen/Qwen3-4B')\n"
        "print(local_model_folder(source).name, len(load_tokenizer(source)))"
    )
    done = run("-c", code)
    commit, tokens = done.stdout.split()
    assert commit == hub.repos["Qwen/Qwen3-4B"].head and int(tokens) > 100, done.stderr


def test_a_name_that_the_hub_does_not_have_is_said(hub: Hub, run: Run, tmp_path: Path) -> None:
    done = run("-m", "distill_data.cli", "plan", str(RECIPE), "--set", f"root={tmp_path}", "--json")
    assert done.returncode and "openai/gsm8k" in done.stderr and "Traceback" not in done.stderr
    assert "check path:, subset:, split: and revision:" in done.stderr
