"""Imports point inward: a module imports only what stands above it in ORDER."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ORDER = [
    "errors", "identity", "section", "license_config", "compare_config", "sampling_config", "labels_config",
    "servers_config", "teacher_config", "judge_config", "prompt_config", "filter_config", "gates_config",
    "schedule_config", "keep_config", "dedup_config", "publish_config", "evaluate_config", "student_config",
    "rounds_config", "config",
    "config_problems", "config_file", "reference", "templates", "records", "compiled", "list_loops", "soft_labels",
    "label_distributions", "reasoning", "file_hash", "package_file", "mapped", "gguf", "models", "teacher_identity",
    "prompts", "planning", "parquet", "part_file", "trace_table", "trace_index", "trace_store", "dead_letters",
    "lease", "teachers", "verify", "filters", "corpus", "export", "page", "publish", "judging", "screening",
    "promotion", "student", "comparison", "session", "build", "judging_build", "build_report", "rounds", "evaluation",
    "estimate", "doctor", "report", "progress", "interrupt", "cli",
]  # fmt: skip
# A corpus hands out a reader for training; it is imported only when asked for.
EXCEPTIONS = {("corpus/read.py", "student")}
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "vllm",
    "reasoning_gym",
    "huggingface_hub",
    "prefect",
    "accelerate",
    "ray",
    "numba",
}
ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "distill_data").rglob("*.py"))
FLOWS = sorted((ROOT / "flows").rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imports(file: Path, anywhere: bool = True) -> Iterator[str]:
    """Dotted names that a file imports; without `anywhere`, only those that run when it is imported."""
    pending: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        deferred = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only
        if anywhere or not deferred:
            pending.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("file", LIBRARY, ids=name_of)
def test_imports_point_inward(file: Path) -> None:
    inside = file.relative_to(ROOT / "distill_data")
    own = inside.parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for name in imports(file):
        parts = name.split(".")
        if parts[0] != "distill_data" or parts[1] == own or (inside.as_posix(), parts[1]) in EXCEPTIONS:
            continue
        assert ORDER.index(parts[1]) < ORDER.index(own), f"{file.name} imports {name}"


def test_the_order_names_every_module() -> None:
    there = {file.relative_to(ROOT / "distill_data").parts[0].removesuffix(".py") for file in LIBRARY}
    assert there - {"__init__"} == set(ORDER)


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("vllm", "distill_data/teachers/vllm_"),
        ("prefect", "flows/"),
        ("numba", "distill_data/compiled.py"),
        ("ray", "distill_data/teachers/ray_pool.py"),
    ],
)
def test_one_place_imports(package: str, only: str) -> None:
    users = {name_of(file) for file in [*LIBRARY, *FLOWS] if package in {name.split(".")[0] for name in imports(file)}}
    assert users
    assert all(user.startswith(only) for user in users), users


def test_only_the_command_line_knows_the_flows() -> None:
    users = {name_of(file) for file in LIBRARY if "flows" in {name.split(".")[0] for name in imports(file)}}
    assert users == {"distill_data/cli/jobs.py"}


@pytest.mark.parametrize("file", LIBRARY, ids=name_of)
def test_heavy_imports_wait_until_they_are_needed(file: Path) -> None:
    allowed = {"torch", "transformers", "accelerate"} if file.parent.name == "student" else set()
    if file.name == "compiled.py":  # imported by loops alone, and these where one is called
        allowed = {"numba"}
    assert {name.split(".")[0] for name in imports(file, anywhere=False)} & HEAVY <= allowed
