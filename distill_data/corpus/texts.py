"""Whether what a version says in words is what it says in token ids, on a sample of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.corpus.read import Corpus

ROWS = 16  # of every file


def text_problems(corpus: Corpus, tokenizer: Any) -> list[str]:
    """Rows whose ids decode to other words than their last message, one line each: the first ROWS of every file.

    Of a completion that ended by itself the last token is the one that stopped it, and no part of its text. Of a
    teacher that classified ids are those of all labels, and words those of one.
    """
    problems: list[str] = []
    if corpus.labels:
        return problems
    for split in corpus.splits:
        for traces in corpus.files("traces", split):
            labels = corpus.path / "soft_labels" / traces.name
            for row, (said, trace) in enumerate(zip(_ids(labels), _texts(traces), strict=True)):
                ids = said[:-1] if trace["finish_reason"] == "stop" else said
                text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
                if text != trace["messages"][-1]["content"]:
                    name = f"soft_labels/{traces.name}"
                    problems.append(
                        f"{name}: row {row}: completion_token_ids say other words than traces/{traces.name}"
                    )
    return problems


def _ids(file: Path) -> Iterator[list[int]]:
    yield from _first(file, ["completion_token_ids"])["completion_token_ids"].to_pylist()


def _texts(file: Path) -> Iterator[dict[str, Any]]:
    yield from _first(file, ["messages", "finish_reason"]).to_pylist()


def _first(file: Path, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(file) as reader:
        batches = reader.iter_batches(batch_size=ROWS, columns=columns)
        return pa.Table.from_batches([batch for batch, _ in zip(batches, range(1), strict=False)]).slice(0, ROWS)
