from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from distill_data import cli
from distill_data.corpus.assemble import assemble
from distill_data.export import FORMATS
from tests.unit.corpus.conftest import (
    MakeJob,
    make_job,  # noqa: F401 (a fixture)
)


class Ran(NamedTuple):
    status: int
    out: str
    err: str


class Export:
    """`corpus export` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], root: Path):
        self.monkeypatch, self.capfd, self.root = monkeypatch, capfd, root

    def __call__(self, *arguments: str) -> Ran:
        command = ["distill-data", "corpus", "export", *arguments, "--root", str(self.root)]
        self.monkeypatch.setattr(sys, "argv", command)
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self.capfd.readouterr()
        return Ran(int(ended.value.code or 0), out, err)


@pytest.fixture
def export(
    make_job: MakeJob,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Export:
    assemble(make_job(), lambda progress: None)
    return Export(monkeypatch, capfd, tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_written_where_it_says(export: Export, format: str) -> None:
    ran = export("sums@v1", "--format", format, "--json")
    assert (ran.status, ran.err) == (0, "")
    report = json.loads(ran.out)
    assert (report["corpus"], report["format"]) == ("sums@v1", format)
    assert Path(report["path"]) == export.root / "exports" / f"sums-v1-{format}"
    assert (Path(report["path"]) / "README.md").is_file()


def test_a_person_reads_what_was_written_and_what_is_lost(export: Export) -> None:
    ran = export("sums", "--format", "axolotl", "--split", "train", "--out", str(export.root / "here"))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("sums@v1 is exported for axolotl\n")
    assert re.search(r"^  train +\d+ traces$", ran.out, re.MULTILINE) and "validation" not in ran.out
    assert "the tail: the loss has no bucket" in ran.out
    assert sorted(path.name for path in (export.root / "here").iterdir()) == [
        "README.md", "export.json", "train.parquet",
    ]  # fmt: skip


REFUSED: dict[str, tuple[list[str], str]] = {
    "a format that there is not": (["--format", "llama"], r"'llama' is no export format: use one of axolotl, .*jsonl"),
    "a split that there is not": (["--format", "trl", "--split", "test"], r"sums@v1 has no split 'test': use train"),
    "no format": ([], r"Missing option '--format': see `distill-data --help`"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_arguments_are_one_line_and_exit_2(export: Export, case: str, as_json: bool) -> None:
    arguments, pattern = REFUSED[case]
    ran = export("sums@v1", *arguments, *(["--json"] if as_json else []))
    assert ran.status == 2
    assert re.fullmatch(f"error: {pattern}.*\n", ran.err)
    document: dict[str, Any] = json.loads(ran.out) if as_json else {}
    assert document.get("error", ran.err[7:-1]) == ran.err[7:-1]
    assert not (export.root / "exports").exists()


def test_a_folder_that_is_there_is_refused(export: Export) -> None:
    assert export("sums@v1", "--format", "trl").status == 0
    before = {path: path.read_bytes() for path in (export.root / "exports").rglob("*.*")}
    again = export("sums@v1", "--format", "trl")
    assert again.status == 2
    assert re.fullmatch(r"error: .*/exports/sums-v1-trl exists already: give another --out, or remove it\n", again.err)
    assert {path: path.read_bytes() for path in (export.root / "exports").rglob("*.*") if path.is_file()} == before


def test_the_help_names_every_format(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    ran = export("--help")
    assert ran.status == 0
    for format in FORMATS:
        assert format in ran.out
