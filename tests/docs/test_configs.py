from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_data.config_file import load_config
from tests.docs.conftest import PROJECT, blocks

CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))
ISSUE_EXAMPLE = Path(__file__).parent / "issue_example.yaml"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads_and_is_listed(path: Path) -> None:
    assert load_config(path).name
    assert f"[{path.name}]({path.name})" in (PROJECT / "configs" / "README.md").read_text(encoding="utf-8")


def test_accelerate_takes_every_key_of_the_config_that_shards() -> None:
    """By its own loader, which refuses unknown keys, and the one that hands `fsdp_config` to the processes."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser, prepare_multi_gpu_env

    file = str(PROJECT / "configs" / "accelerate" / "fsdp.yaml")
    loaded: Any = load_config_from_file(file)
    assert (loaded.distributed_type, loaded.mixed_precision, loaded.num_processes) == ("FSDP", "no", 8)
    options = launch_command_parser().parse_args(["--config_file", file, "-m", "distill_data.cli"])
    environment = prepare_multi_gpu_env(_validate_launch_command(options)[0])
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    for key, value in loaded.fsdp_config.items():
        assert environment[key.upper()].lower() == str(value).lower()


def test_configs_have_names_of_their_own() -> None:
    names = [load_config(path).name for path in CONFIGS]
    assert len(set(names)) == len(names) >= 3


def test_every_whole_config_in_the_readme_loads(tmp_path: Path) -> None:
    whole = [block for block in blocks("yaml") if {"prompts", "teacher"} <= yaml.safe_load(block).keys()]
    assert len(whole) == 1
    file = tmp_path / "config.yaml"
    file.write_text(whole[0], encoding="utf-8")
    config = load_config(file)
    assert config.student is not None and config.student.train.learning_rate == 1e-3
    assert config.teacher.system_prompt == 'Think step by step, then finish with a line "Answer: <value>".'


def test_the_issues_example_loads_as_written() -> None:
    config = load_config(ISSUE_EXAMPLE)
    assert [source.label for source in config.prompts] == ["chain_sum", "prompts"]
    assert config.teacher.system_prompt == 'Think step by step, then finish with a line "Answer: <value>".'
