"""Benchmarks as their sections name them, read by the same code as prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from distill_data.dedup_config import BenchmarkSource, Decontaminate
from distill_data.errors import InputError
from distill_data.filters.decontamination import Benchmarks, BenchmarkTexts
from distill_data.prompt_config import DatasetPrompts
from distill_data.prompts.dataset import open_dataset
from distill_data.records import Prompt

_BATCH_ROWS = 4096


def load_benchmarks(section: Decontaminate) -> tuple[Benchmarks, dict[str, dict[str, Any]]]:
    """All benchmarks to look texts up in, and by name what pins each: where it is from, its texts and their hash.

    Raises:
        InputError: one cannot be read.
    """
    facts: dict[str, dict[str, Any]] = {}

    def read() -> Iterator[BenchmarkTexts]:
        for source in section.benchmarks:
            texts, revision = load_benchmark(source, section.answers)
            facts[source.label] = {**revision, "texts": len(texts.texts), "texts_sha256": _content_hash(texts)}
            yield texts

    return Benchmarks(read(), section.ngram, section.common), facts


def load_screened_by(section: Decontaminate, screened_by: dict[str, dict[str, Any]]) -> Benchmarks:
    """The benchmarks once more, that prompts were screened by.

    Raises:
        InputError: one cannot be read, or has changed since.
    """
    benchmarks, facts = load_benchmarks(section)
    for label, now in facts.items():
        if now["texts_sha256"] != screened_by[label]["texts_sha256"]:
            raise InputError(f"benchmark {label!r} has changed since the prompts were compared with it: build again")
    return benchmarks


def load_benchmark(section: BenchmarkSource, answers: bool = False) -> tuple[BenchmarkTexts, dict[str, Any]]:
    """The texts of a benchmark, column by column, with its answers where they are compared, and what was read.

    Raises:
        InputError: no such file or dataset, no such column, no rows, or a value that is no text.
    """
    revision: dict[str, Any] = {}
    texts: list[pa.Array] = []
    for column in section.text:
        prompts, revision = _open(section, column)
        texts.extend(_arrays(prompt.messages[0]["content"] for prompt in prompts))
    held = None
    if answers and section.answer is not None:
        prompts, _ = _open(section, section.text[0], section.answer)
        held = pa.chunked_array(_arrays(prompt.reference for prompt in prompts), pa.string())
    return BenchmarkTexts(section.label, pa.chunked_array(texts, pa.string()), held), revision


def _open(section: BenchmarkSource, column: str, answer: str | None = None) -> tuple[Iterator[Prompt], dict[str, Any]]:
    """One text column as prompts, the answers as their references."""
    return open_dataset(
        DatasetPrompts(
            source="dataset",
            path=section.path,
            subset=section.subset,
            split=section.split,
            revision=section.revision,
            prompt=column,
            reference=answer,
            name=section.label,
        )
    )


def _content_hash(benchmark: BenchmarkTexts) -> str:
    """SHA-256 of what is compared, text by text."""
    hashed = hashlib.sha256()
    for column in (benchmark.texts, benchmark.answers):
        hashed.update(b"column")
        for text in [] if column is None else column:
            said = (text.as_py() or "").encode()
            hashed.update(b"%d:" % len(said))
            hashed.update(said)
    return hashed.hexdigest()


def _arrays(texts: Iterable[str | None]) -> Iterator[pa.Array]:
    waiting = iter(texts)
    while batch := list(islice(waiting, _BATCH_ROWS)):
        yield pa.array(batch, pa.string())
