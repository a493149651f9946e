from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from distill_data.cli import app
from tests.docs.conftest import PROJECT, README, blocks

PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "configs/README.md")]
ROOT: Any = typer.main.get_command(app)


def commands(text: str) -> list[str]:
    """What is written after `distill-data ` in code, up to the end of the code span or line."""
    return re.findall(r"(?<!\w)distill-data ((?:corpus )?[a-z]+[^`\n|#]*)", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target.split("#")[0]).exists(), target


def test_links_to_a_heading_lead_to_it() -> None:
    anchors = {re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-") for line in README.splitlines()}
    for page in PAGES:
        for anchor in re.findall(r"\]\([^)]*#([^)]+)\)", page.read_text(encoding="utf-8")):
            assert anchor in anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists_with_its_options(page: Path) -> None:
    for line in commands(_code(page.read_text(encoding="utf-8"))):
        command, words = ROOT, shlex.split(line)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), f"{line!r} names no command"
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


def test_the_readme_names_every_command() -> None:
    names = {name for name in ROOT.commands if name != "corpus"}
    names |= {f"corpus {name}" for name in ROOT.commands["corpus"].commands}
    documented = {name for name in names for line in commands(README) if line.startswith(name)}
    assert documented == names


def test_every_command_takes_json() -> None:
    leaves = [c for name, c in ROOT.commands.items() if name != "corpus"] + list(
        ROOT.commands["corpus"].commands.values()
    )
    for leaf in leaves:
        assert "--json" in {option for parameter in leaf.params for option in parameter.opts}, leaf.name


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_python_compiles(block: str) -> None:
    compile(block, "README.md", "exec")


def test_python_that_opens_a_corpus_runs(
    quickstart_corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [block for block in blocks("python") if "corpus.traces" in block]
    monkeypatch.chdir(quickstart_corpus)
    names: dict[str, Any] = {}
    exec(block, names)
    assert len(names["traces"]) == len(names["labels"]) == len(names["reader"]) > 0
    assert names["traces"]["trace_id"] == names["labels"]["trace_id"]
    assert set(names["rejected"]["drop_reason"].to_pylist()) == {"failed_verifier", "truncated"}
    assert "add 1" in capsys.readouterr().out


def test_files_in_the_tree_are_those_that_a_corpus_has(quickstart_corpus: Path) -> None:
    version = quickstart_corpus / "data" / "corpora" / "quickstart" / "v1"
    (tree,) = [block for block in blocks("") if block.startswith("data/\n")]
    for path in version.rglob("*"):
        if path.is_file():
            name = path.relative_to(version).as_posix().split("-0")[0]
            assert name in tree


def _code(text: str) -> str:
    """Code spans and fenced blocks only, without what the commands print."""
    fenced = [line for block in blocks(None, text) for line in block.splitlines() if not line.startswith("  ")]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return "\n".join([*fenced, *spans])
