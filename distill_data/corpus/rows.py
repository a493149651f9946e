"""The rows of a version: what the store and the judge say, in the columns of the three file families."""

from __future__ import annotations

import pyarrow as pa

from distill_data.corpus.assembly import Assembly, split_part
from distill_data.identity import trace_id
from distill_data.records import (
    MESSAGES,
    REJECTED_SCHEMA,
    SOFT_LABEL_FIELDS,
    SOFT_LABELS_SCHEMA,
    TRACES_SCHEMA,
    Message,
)
from distill_data.teacher_config import Teacher
from distill_data.teachers.rendering import with_system_prompt


def trace_rows(job: Assembly, decisions: pa.Table, part: pa.Table) -> pa.Table:
    """Rows of REJECTED_SCHEMA, which starts with TRACES_SCHEMA, one per decision.

    Args:
        job: the assembly.
        decisions: rows of `decide`'s table.
        part: the same rows from the store, as PART_SCHEMA.
    """
    prompts = job.prompts.take(decisions["prompt_row"].to_numpy())
    splits = split_part(part, job.split)
    columns = {
        "trace_id": _trace_ids(job.teacher_id, part),
        "messages": _conversations(prompts["messages"], part, job.config.teacher),
        "thinking": pa.array([split.thinking for split in splits], pa.string()),
        "answer": pa.array([split.answer for split in splits], pa.string()),
        **{name: prompts[name] for name in ("source", "reference", "metadata")},
        **{name: decisions[name] for name in ("score", "passed", "drop_reason", "drop_detail")},
    }
    return _in_schema({**_columns(part), **columns}, REJECTED_SCHEMA)


def soft_label_rows(traces: pa.Table, part: pa.Table) -> pa.Table:
    """Rows of SOFT_LABELS_SCHEMA, aligned with rows of `trace_rows`."""
    labels = part.select([name for name, _ in SOFT_LABEL_FIELDS])
    return labels.add_column(0, "trace_id", traces["trace_id"]).cast(SOFT_LABELS_SCHEMA)


def dropped_prompt_rows(dropped: pa.Table) -> pa.Table:
    """Prompts that were dropped before the teacher saw them, as rows of REJECTED_SCHEMA."""
    columns = _columns(dropped)
    missing = [field for field in REJECTED_SCHEMA if field.name not in columns]
    nulls = {field.name: pa.nulls(len(dropped), field.type) for field in missing}
    return _in_schema({**columns, **nulls}, REJECTED_SCHEMA)


def as_traces(rows: pa.Table) -> pa.Table:
    """Rows of `trace_rows` as TRACES_SCHEMA."""
    return rows.select(TRACES_SCHEMA.names)


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: table[name] for name in table.column_names}


def _in_schema(columns: dict[str, pa.ChunkedArray | pa.Array], schema: pa.Schema) -> pa.Table:
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _trace_ids(teacher: str, part: pa.Table) -> pa.Array:
    prompts, samples = part["prompt_id"].to_pylist(), part["sample_index"].to_pylist()
    return pa.array([trace_id(teacher, prompt, sample) for prompt, sample in zip(prompts, samples, strict=True)])


def _conversations(messages: pa.ChunkedArray, part: pa.Table, teacher: Teacher) -> pa.Array:
    """The messages that the teacher saw, then its completion where there is one."""
    said, errors = part["completion"].to_pylist(), part["error"].to_pylist()
    return pa.array(
        [
            _conversation(asked, completion if error is None else None, teacher)
            for asked, completion, error in zip(messages.to_pylist(), said, errors, strict=True)
        ],
        MESSAGES,
    )


def _conversation(asked: list[Message], completion: str | None, teacher: Teacher) -> list[Message]:
    answer = [{"role": "assistant", "content": completion}] if completion is not None else []
    return [*with_system_prompt(asked, teacher), *answer]
