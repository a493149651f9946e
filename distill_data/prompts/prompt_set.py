"""All prompts of a config as one table: unique, in the config's order, with what was dropped and why."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.config import PromptSource, ReasoningGymPrompts
from distill_data.errors import InputError
from distill_data.identity import digest, sequence_digest
from distill_data.prompts.dataset import open_dataset
from distill_data.prompts.reasoning_gym import open_task
from distill_data.records import PROMPT_SCHEMA, Prompt, prompts_to_table

BATCH_ROWS = 4096
ROW_GROUP_ROWS = 1024  # workers read their rows by range
DROPPED_SCHEMA = PROMPT_SCHEMA.append(pa.field("drop_reason", pa.string())).append(pa.field("drop_detail", pa.string()))


@dataclass(frozen=True)
class PromptSet:
    """Prompts that are ready to be asked.

    `table` has PROMPT_SCHEMA, one row per prompt_id; `dropped` adds `drop_reason` (`empty_prompt`,
    `duplicate_prompt`) and `drop_detail`; `revisions` says per source label what exactly was read.
    """

    table: pa.Table
    dropped: pa.Table
    revisions: dict[str, dict[str, Any]]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over prompt_id, source, reference and metadata of the rows, in order."""
        columns = self.table.select(["prompt_id", "source", "reference", "metadata"])
        rows = (digest(list(row.values())) for batch in columns.to_batches() for row in batch.to_pylist())
        return sequence_digest({"kind": "prompts"}, rows)


def load_prompts(sources: list[PromptSource]) -> PromptSet:
    """Read every source; drop prompts without text and prompts that were there before.

    Raises:
        InputError: a source cannot be read, or no prompt is left.
    """
    kept, dropped, revisions = [PROMPT_SCHEMA.empty_table()], [DROPPED_SCHEMA.empty_table()], {}
    seen: dict[str, tuple[str, int]] = {}
    for source in sources:
        prompts, revision = open_task(source) if isinstance(source, ReasoningGymPrompts) else open_dataset(source)
        revisions[source.label] = revision
        row = 0
        while batch := list(islice(prompts, BATCH_ROWS)):
            table = prompts_to_table(batch)
            reasons, details = _drop(batch, table["prompt_id"].to_pylist(), row, seen)
            row += len(batch)
            keep = np.array([reason is None for reason in reasons])
            kept.append(table.filter(pa.array(keep)))
            both = table.append_column("drop_reason", pa.array(reasons, pa.string()))
            both = both.append_column("drop_detail", pa.array(details, pa.string()))
            dropped.append(both.filter(pa.array(~keep)))
    prompt_set = PromptSet(pa.concat_tables(kept), pa.concat_tables(dropped), revisions)
    if prompt_set.table.num_rows == 0:
        raise InputError(f"all {prompt_set.dropped.num_rows} prompts are empty: check the prompt: or messages: column")
    return prompt_set


def save_prompts(prompt_set: PromptSet, root: Path) -> Path:
    """Write the prompts to `<root>/prompts/<digest>.parquet`, whole or not at all; once per content."""
    path = root / "prompts" / f"{prompt_set.digest[:16]}.parquet"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            pq.write_table(prompt_set.table, stream, row_group_size=ROW_GROUP_ROWS, compression="zstd")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def _drop(
    batch: list[Prompt], ids: list[str], first_row: int, seen: dict[str, tuple[str, int]]
) -> tuple[list[str | None], list[str | None]]:
    """Drop reason and detail of every prompt of a batch (None: kept); remembers the kept ones in `seen`."""
    reasons: list[str | None] = []
    details: list[str | None] = []
    for row, (prompt, name) in enumerate(zip(batch, ids, strict=True), start=first_row):
        reason = detail = None
        if not _has_text(prompt):
            reason, detail = "empty_prompt", f"source {prompt.source}, row {row}: no text for the teacher"
        elif name in seen:
            source, first = seen[name]
            reason = "duplicate_prompt"
            detail = f"source {prompt.source}, row {row}: same as source {source}, row {first}"
        else:
            seen[name] = (prompt.source, row)
        reasons.append(reason)
        details.append(detail)
    return reasons, details


def _has_text(prompt: Prompt) -> bool:
    """Whether the last user message says anything."""
    users: Iterator[str] = (message["content"] for message in reversed(prompt.messages) if message["role"] == "user")
    return bool(next(users, "").strip())
