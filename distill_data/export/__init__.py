"""Corpus versions as files that other trainers read.

Reading order: conversion, distributions, axolotl, distillkit, text, write; then the table of formats here. Each
format's module says what its tool expects, and in which version of its sources that was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from distill_data.corpus.read import Corpus
from distill_data.errors import InputError
from distill_data.export.axolotl import plan_axolotl
from distill_data.export.conversion import Planner
from distill_data.export.distillkit import plan_distillkit
from distill_data.export.text import plan_jsonl, plan_ms_swift, plan_trl, plan_trl_prompt_completion
from distill_data.export.write import require_empty, write_export

FORMATS: dict[str, Planner] = {
    "axolotl": plan_axolotl,
    "distillkit": plan_distillkit,
    "trl": plan_trl,
    "trl-prompt-completion": plan_trl_prompt_completion,
    "ms-swift": plan_ms_swift,
    "jsonl": plan_jsonl,
}


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote; `corpus export --json` prints it."""

    corpus: str  # NAME@vN
    format: str
    path: str
    rows: dict[str, int]  # by split
    bytes: int  # of all files
    lost: tuple[str, ...]  # what the corpus says and the files do not


def export_folder(root: str | Path, corpus: Corpus, format: str) -> Path:
    """Where an export goes that was given no folder."""
    return Path(root) / "exports" / f"{corpus.name}-v{corpus.version}-{format}"


def export_corpus(corpus: Corpus, format: str, folder: Path, split: str | None = None) -> ExportReport:
    """Write a corpus version as files that another trainer reads: one per split, a README and export.json.

    Args:
        corpus: the version.
        format: a key of FORMATS.
        folder: where to; empty or not there. It appears when everything is in it.
        split: only this one.

    Raises:
        InputError: no such format or split, or the folder has something in it.
        CorpusError: a trace has no soft labels and the format is made of them, a file is damaged, or cannot be written.
    """
    if format not in FORMATS:
        raise InputError(f"{format!r} is no export format: use one of {', '.join(FORMATS)}")
    if split is not None and split not in corpus.splits:
        raise InputError(f"{corpus.reference} has no split {split!r}: use {' or '.join(corpus.splits)}")
    require_empty(folder)
    splits = corpus.splits if split is None else (split,)
    conversion = FORMATS[format](corpus, splits)
    manifest = corpus.manifest
    facts = {
        "corpus": corpus.reference,
        "digest": manifest.digest,
        "teacher_id": manifest.teacher_id,
        "tokenizer_sha256": manifest.tokenizer["sha256"],
        "format": format,
        "exported_by": f"distill-data {version('distill-data')}",
        "lost": conversion.lost,
    }
    rows = write_export(corpus, conversion, splits, folder, facts)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return ExportReport(corpus.reference, format, str(folder), rows, size, conversion.lost)
