"""The rows of a version: what the store and the judge say, in the columns of the three file families."""

from __future__ import annotations

import pyarrow as pa

from distill_data.corpus.assembly import Assembly, split_part
from distill_data.identity import trace_id
from distill_data.records import (
    LABEL_PROBABILITIES,
    MESSAGES,
    SOFT_LABEL_FIELDS,
    SOFT_LABELS_SCHEMA,
    Message,
    light_schema,
)
from distill_data.teacher_config import Teacher
from distill_data.teachers.rendering import with_system_prompt

LABEL = LABEL_PROBABILITIES.name


def trace_rows(job: Assembly, decisions: pa.Table, part: pa.Table) -> pa.Table:
    """Rows of `schema_of(job, "rejected")`, which starts with that of traces, one per decision.

    Args:
        job: the assembly.
        decisions: rows of `decide`'s table.
        part: the same rows from the store, as PART_SCHEMA.
    """
    prompts = job.prompts.take(decisions["prompt_row"].to_numpy())
    labelled = {}
    if job.labelling is None:
        splits, said = split_part(part, job.split), part["completion"].to_pylist()
    else:
        probabilities = job.labelling.probabilities(part, prompts)
        splits, labelled = job.labelling.answers(probabilities), {LABEL: job.labelling.column(probabilities)}
        said = [job.config.teacher.labels.get(split.answer, "") for split in splits]
    columns = {
        **labelled,
        "trace_id": _trace_ids(job.teacher_id, part),
        "messages": _conversations(prompts["messages"], said, part["error"].to_pylist(), job.config.teacher),
        "thinking": pa.array([split.thinking for split in splits], pa.string()),
        "answer": pa.array([split.answer for split in splits], pa.string()),
        **{name: prompts[name] for name in ("source", "reference", "metadata")},
        **{name: decisions[name] for name in ("score", "passed", "drop_reason", "drop_detail")},
    }
    return _in_schema({**_columns(part), **columns}, schema_of(job, "rejected"))


def soft_label_rows(traces: pa.Table, part: pa.Table) -> pa.Table:
    """Rows of SOFT_LABELS_SCHEMA, aligned with rows of `trace_rows`."""
    labels = part.select([name for name, _ in SOFT_LABEL_FIELDS])
    return labels.add_column(0, "trace_id", traces["trace_id"]).cast(SOFT_LABELS_SCHEMA)


def dropped_prompt_rows(job: Assembly) -> pa.Table:
    """Prompts that were dropped before the teacher saw them, as rows of `schema_of(job, "rejected")`."""
    dropped, schema = job.prompts.dropped, schema_of(job, "rejected")
    columns = _columns(dropped)
    missing = [field for field in schema if field.name not in columns]
    nulls = {field.name: pa.nulls(len(dropped), field.type) for field in missing}
    return _in_schema({**columns, **nulls}, schema)


def as_traces(job: Assembly, rows: pa.Table) -> pa.Table:
    """Rows of `trace_rows` as those of traces."""
    return rows.select(schema_of(job, "traces").names)


def schema_of(job: Assembly, family: str) -> pa.Schema:
    """Columns of a light file family of the version."""
    return light_schema(family, labelled=job.labelling is not None)


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return {name: table[name] for name in table.column_names}


def _in_schema(columns: dict[str, pa.ChunkedArray | pa.Array], schema: pa.Schema) -> pa.Table:
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _trace_ids(teacher: str, part: pa.Table) -> pa.Array:
    prompts, samples = part["prompt_id"].to_pylist(), part["sample_index"].to_pylist()
    return pa.array([trace_id(teacher, prompt, sample) for prompt, sample in zip(prompts, samples, strict=True)])


def _conversations(messages: pa.ChunkedArray, said: list[str], errors: list[str | None], teacher: Teacher) -> pa.Array:
    """The messages that the teacher saw, then its completion where there is one."""
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
