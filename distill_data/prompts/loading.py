"""Read every prompt source into one prompt set: unique, in the config's order, with what was dropped and why.

They are read once, into a temporary file, and sorted into kept and dropped ones from there. What is in memory at once
is a batch of them, and some dozen bytes a prompt to find those that are there twice.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.errors import InputError, TraceStoreError, reason_of
from distill_data.mapped import mapped_table
from distill_data.prompt_config import Mode, PromptSource, ReasoningGymPrompts
from distill_data.prompts.dataset import open_dataset
from distill_data.prompts.prompt_set import DROPPED_SCHEMA, PromptSet
from distill_data.prompts.reasoning_gym import open_task
from distill_data.records import PROMPT_SCHEMA, Prompt, prompts_to_table

BATCH_ROWS = 4096
_READ_SCHEMA = DROPPED_SCHEMA.append(pa.field("row", pa.int64()))  # of its source


def load_prompts(sources: list[PromptSource], mode: Mode = "generate") -> PromptSet:
    """Read every source for a teacher in this mode; drop prompts without text and prompts that were there before.

    Raises:
        InputError: a source cannot be read, or no prompt is left.
        TraceStoreError: the folder for temporary files cannot be written.
    """
    revisions: dict[str, dict[str, Any]] = {}
    read = _name_duplicates(_mapped(_READ_SCHEMA, _read(sources, mode, revisions)))
    kept = (batch.filter(batch["drop_reason"].is_null()).select(PROMPT_SCHEMA.names) for batch in read.to_batches())
    dropped = (batch.filter(batch["drop_reason"].is_valid()).drop_columns(["row"]) for batch in read.to_batches())
    prompt_set = PromptSet(_mapped(PROMPT_SCHEMA, kept), _mapped(DROPPED_SCHEMA, dropped), revisions)
    if prompt_set.table.num_rows == 0:
        raise InputError(
            f"all {prompt_set.dropped.num_rows} prompts are empty, or their completions are: check the columns that "
            "prompt:, messages: and completion: name"
        )
    return prompt_set


def _mapped(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    try:
        return mapped_table(schema, batches)
    except OSError as error:
        raise TraceStoreError(
            f"cannot write prompts to {tempfile.gettempdir()}: {reason_of(error)}: free space there, or set TMPDIR to "
            "a folder with more"
        ) from error


def _read(sources: list[PromptSource], mode: Mode, revisions: dict[str, dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    """All prompts of all sources as _READ_SCHEMA, those without text named; adds to `revisions` what was read."""
    for source in sources:
        prompts, revisions[source.label] = _open(source, mode)
        row = 0
        while batch := list(islice(prompts, BATCH_ROWS)):
            table = prompts_to_table(batch)
            why = [_why_empty(prompt, row + at) for at, prompt in enumerate(batch)]
            table = table.append_column("drop_reason", pa.array([reason for reason, _ in why], pa.string()))
            table = table.append_column("drop_detail", pa.array([detail for _, detail in why], pa.string()))
            yield from table.append_column("row", pa.array(np.arange(row, row + len(batch)))).to_batches()
            row += len(batch)


def _open(source: PromptSource, mode: Mode) -> tuple[Iterator[Prompt], dict[str, Any]]:
    """The prompts of a source, with its own system prompt and sampling where it has them, and what was read."""
    if isinstance(source, ReasoningGymPrompts):
        prompts, revision = open_task(source)
    else:
        prompts, revision = open_dataset(source, mode)
    if source.system_prompt is not None:
        prompts = (_with_system_prompt(prompt, source.system_prompt) for prompt in prompts)
    overrides = source.sampling.of_a_trace() if source.sampling else None
    if overrides is None:
        return prompts, revision
    return (replace(prompt, sampling=overrides) for prompt in prompts), revision


def _with_system_prompt(prompt: Prompt, text: str) -> Prompt:
    """The prompt with this system message first, unless it brings one."""
    if prompt.messages and prompt.messages[0]["role"] == "system":
        return prompt
    return replace(prompt, messages=[{"role": "system", "content": text}, *prompt.messages])


def _why_empty(prompt: Prompt, row: int) -> tuple[str | None, str | None]:
    """Drop reason and detail of a prompt without text, twice None for another one."""
    if not _has_text(prompt):
        return "empty_prompt", f"source {prompt.source}, row {row}: no text for the teacher"
    if prompt.completion is not None and not prompt.completion.strip():
        return "empty_completion", f"source {prompt.source}, row {row}: no text to score"
    return None, None


def _has_text(prompt: Prompt) -> bool:
    """Whether the last user message says anything."""
    users: Iterator[str] = (message["content"] for message in reversed(prompt.messages) if message["role"] == "user")
    return bool(next(users, "").strip())


def _name_duplicates(read: pa.Table) -> pa.Table:
    """A table of _READ_SCHEMA with the drop reason of every prompt that was there before."""
    with_text = pc.if_else(pc.is_null(read["drop_reason"]), read["prompt_id"], None).combine_chunks()
    first = pc.index_in(with_text, value_set=with_text, skip_nulls=True)  # row of the first prompt with this id
    repeated = pc.fill_null(pc.not_equal(first, pa.array(np.arange(len(read), dtype=np.int32))), False)
    names = {"drop_reason": pa.scalar("duplicate_prompt"), "drop_detail": _same_as(read, repeated, first)}
    for name, values in names.items():
        column = pc.replace_with_mask(read[name].combine_chunks(), repeated, values)
        read = read.set_column(read.schema.get_field_index(name), name, column)
    return read


def _same_as(read: pa.Table, repeated: pa.BooleanArray, first: pa.Int32Array) -> pa.Array:
    """What each repeated prompt is the same as, in words."""
    places = read.select(["source", "row"])
    own, other = places.filter(repeated), places.take(first.filter(repeated))
    words = [["source ", place["source"], ", row ", place["row"].cast(pa.string())] for place in (own, other)]
    return pc.binary_join_element_wise(*words[0], ": same as ", *words[1], "").combine_chunks()
