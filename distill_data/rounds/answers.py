"""What the teacher scores in a round: completions by their token ids, each once."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.build import BuildPlan, replanned
from distill_data.corpus.assembly import rows_of, slices
from distill_data.corpus.held_out import held_out_of
from distill_data.corpus.read import Corpus
from distill_data.errors import TraceStoreError, reason_of
from distill_data.mapped import mapped_table
from distill_data.prompts import PromptSet
from distill_data.prompts.prompt_set import DROPPED_SCHEMA
from distill_data.records import PROMPT_SCHEMA, Prompt, prompts_to_table, table_to_prompts

_ROWS = 1024


def trained_on(prompts: PromptSet, first: Corpus) -> PromptSet:
    """The prompts that a version does not hold out, whether it has rows of them or not: see `corpus.held_out`.

    Raises:
        TraceStoreError: the folder for temporary files cannot be written.
        CorpusError: a file of the version is damaged.
    """
    kept = pa.chunked_array([~held_out_of(prompts.table, first)[0]])
    batches = prompts.table.filter(kept).to_batches()
    return replace(prompts, table=_mapped(batches), dropped=DROPPED_SCHEMA.empty_table())


def to_score(answers: BuildPlan, first: Corpus | None, revisions: dict[str, dict[str, Any]]) -> PromptSet:
    """A student's finished answers as prompts with a completion, and those that the teacher gave itself.

    Args:
        answers: the build in which the student answered.
        first: the version whose training rows are scored too; None for none.
        revisions: by source label, who answered.

    Raises:
        TraceStoreError: a part is damaged, or the folder for temporary files cannot be written.
        CorpusError: a file of the version is damaged.
    """
    own = [] if first is None else _teachers_own(first)
    table = _mapped(_once([_students(answers), own]))
    return PromptSet(table, DROPPED_SCHEMA.empty_table(), revisions)


def _students(answers: BuildPlan) -> Iterator[list[Prompt]]:
    """What the student said, a slice at a time; answers that ended in an error are left out."""
    finished = replanned(answers).plan.finished
    finished = finished.filter(pc.is_null(finished["error"]))
    for part in slices(finished["completion_tokens"].to_numpy()):
        rows = rows_of(finished, part)
        columns = ["completion", "completion_token_ids", "finish_reason"]
        said = answers.store.read(rows.select(["part", "row"]), columns).to_pylist()
        asked, at = np.unique(rows["prompt_row"].to_numpy(), return_inverse=True)
        prompts = table_to_prompts(answers.prompts.take(asked))
        yield [
            replace(prompts[number], sampling=None, **_completion(one["completion"], one))
            for number, one in zip(at, said, strict=True)
        ]


def _teachers_own(first: Corpus) -> Iterator[list[Prompt]]:
    """The training rows of a version: its prompts as the teacher saw them, and its completions."""
    families = (first.batches(family, "train", _ROWS) for family in ("traces", "soft_labels"))
    for traces, labels in zip(*families, strict=True):
        pairs = zip(traces.to_pylist(), labels.column("completion_token_ids").to_pylist(), strict=True)
        yield [
            Prompt(
                messages=row["messages"][:-1],
                source=row["source"],
                reference=row["reference"],
                metadata=json.loads(row["metadata"]),
                **_completion(row["messages"][-1]["content"], row | {"completion_token_ids": ids}),
            )
            for row, ids in pairs
        ]


def _completion(text: str, row: dict[str, Any]) -> dict[str, Any]:
    ids = row["completion_token_ids"]
    return {"completion": text, "completion_token_ids": ids, "completion_cut": row["finish_reason"] != "stop"}


def _once(families: Iterable[Iterable[list[Prompt]]]) -> Iterator[pa.RecordBatch]:
    seen: set[str] = set()
    for family in families:
        for some in family:
            named = {prompt.prompt_id: prompt for prompt in some}
            yield from prompts_to_table(one for name, one in named.items() if name not in seen).to_batches()
            seen |= named.keys()


def _mapped(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    try:
        return mapped_table(PROMPT_SCHEMA, batches)
    except OSError as error:
        raise TraceStoreError(
            f"cannot write what is to be scored to {tempfile.gettempdir()}: {reason_of(error)}: free space there, or "
            "set TMPDIR to a folder with more"
        ) from error
