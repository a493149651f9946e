"""The records that flow through the pipeline, and the Arrow schemas that they are stored in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from distill_data.identity import prompt_id

SCHEMA_VERSION = 1

Message = dict[str, str]


@dataclass(frozen=True)
class Prompt:
    """One chat that the teacher is asked to continue.

    `messages` are `{role, content}`; `reference` is the right answer where there is one; `source` is the
    label of the prompt source; `metadata` is free (JSON's own kinds only). `completion` is what a teacher in mode
    `score` scores; where a model wrote it, `completion_token_ids` are the ids that it wrote, and `completion_cut` says
    that it was cut before its end. `sampling` is what the source overrides of the teacher's sampling, without
    `samples`.
    """

    messages: list[Message]
    source: str
    reference: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    completion: str | None = None
    sampling: dict[str, Any] | None = None
    completion_token_ids: list[int] | None = None
    completion_cut: bool = False

    @cached_property
    def group_id(self) -> str:
        """Hash of the messages alone: what keeps all that answers one question on one side of a split."""
        return prompt_id(self.messages)

    @property
    def prompt_id(self) -> str:
        """Hash of the messages and, where they are set, of `completion`, its ids and `sampling`."""
        if self.completion is None and self.sampling is None:
            return self.group_id
        return prompt_id(self.messages, self.completion, self.sampling, self.completion_token_ids)


@dataclass(frozen=True)
class SoftLabels:
    """A trace's sparse next-token distributions, one entry per completion token (T tokens, S kept in all).

    Entry t describes the distribution that produced completion token t. Log-probabilities are natural,
    normalised over the full vocabulary, at temperature 1.
    """

    sampled_logprobs: np.ndarray  # float32 [T]: of the token that was sampled
    support_counts: np.ndarray  # uint8 [T]: kept tokens per position
    support_ids: np.ndarray  # int32 [S]: token-major, likeliest first
    support_logprobs: np.ndarray  # float16 [S], rounded as soft_labels.MANTISSA_BITS says


@dataclass(frozen=True)
class Trace:
    """One teacher completion of one prompt, as a worker commits it.

    `error` names why there is no completion (`prompt_too_long`, `empty_prompt`, `token_out_of_vocabulary`,
    `nonfinite_logprobs`, `request_failed`, `engine_died`); such a trace has no completion ids and no soft labels.
    `finish_reason` is `stop`, `length` (max_tokens), `context` (max_model_len) or `error`.
    """

    prompt_id: str
    sample_index: int
    prompt_token_ids: np.ndarray  # int32 [P], as the teacher saw them
    prompt_suffix: str  # the last characters of the rendered prompt: an opening thinking tag may sit there
    completion_token_ids: np.ndarray  # int32 [T], as the teacher produced them, EOS included
    completion: str  # the text of completion_token_ids without the stop token
    finish_reason: str
    soft_labels: SoftLabels
    error: str | None = None
    error_detail: str | None = None


MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

PROMPT_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("source", pa.string()),
        ("messages", MESSAGES),
        ("reference", pa.string()),
        ("metadata", pa.string()),  # JSON
        ("completion", pa.string()),  # to be scored
        ("sampling", pa.string()),  # JSON of what the source overrides
        ("group_id", pa.string()),  # of the messages alone
        ("completion_token_ids", pa.list_(pa.int32())),
        ("completion_cut", pa.bool_()),
    ]
)

SOFT_LABEL_FIELDS = [
    ("prompt_token_ids", pa.list_(pa.int32())),
    ("completion_token_ids", pa.list_(pa.int32())),
    ("sampled_logprobs", pa.list_(pa.float32())),
    ("support_counts", pa.list_(pa.uint8())),
    ("support_ids", pa.list_(pa.int32())),
    ("support_logprobs", pa.list_(pa.float16())),
]

# A part of the trace store: everything that the teacher said, nothing that was judged later.
PART_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample_index", pa.int32()),
        ("content_digest", pa.string()),  # of the row's ids, labels and outcome
        ("completion", pa.string()),
        ("prompt_suffix", pa.string()),
        ("finish_reason", pa.string()),
        ("error", pa.string()),
        ("error_detail", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("mean_logprob", pa.float32()),  # mean of sampled_logprobs
        *SOFT_LABEL_FIELDS,
    ]
)

# The light family of a corpus version.
TRACES_SCHEMA = pa.schema(
    [
        ("trace_id", pa.string()),
        ("prompt_id", pa.string()),
        ("sample_index", pa.int32()),
        ("source", pa.string()),
        ("messages", MESSAGES),  # the prompt's messages, then the assistant's whole completion
        ("thinking", pa.string()),
        ("answer", pa.string()),
        ("reference", pa.string()),
        ("score", pa.float32()),
        ("passed", pa.bool_()),
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("mean_logprob", pa.float32()),
        ("metadata", pa.string()),  # JSON
    ]
)

# The distribution over labels, in versions of a teacher that classifies; its likeliest label is `answer`.
LABEL_PROBABILITIES = pa.field(
    "label_probabilities", pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float32())]))
)


def _with_reasons(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field("drop_reason", pa.string())).append(pa.field("drop_detail", pa.string()))


REJECTED_SCHEMA = _with_reasons(TRACES_SCHEMA)


def light_schema(family: str, *, labelled: bool) -> pa.Schema:
    """Columns of `traces` or `rejected`; with `labelled`, of a version whose teacher classified."""
    traces = TRACES_SCHEMA.append(LABEL_PROBABILITIES) if labelled else TRACES_SCHEMA
    return traces if family == "traces" else _with_reasons(traces)


# The heavy family, row-aligned with the light one. Nothing in its lists is null, and Parquet is told: lists are read in
# four fifths of the time.
SOFT_LABELS_SCHEMA = pa.schema(
    [
        ("trace_id", pa.string()),
        *(
            pa.field(name, pa.list_(pa.field("element", kind.value_type, nullable=False)), nullable=False)
            for name, kind in SOFT_LABEL_FIELDS
        ),
    ]
)


def prompts_to_table(prompts: Iterable[Prompt]) -> pa.Table:
    """Prompts as a table of PROMPT_SCHEMA."""
    rows = [
        {
            "prompt_id": prompt.prompt_id,
            "source": prompt.source,
            "messages": prompt.messages,
            "reference": prompt.reference,
            "metadata": json.dumps(prompt.metadata, ensure_ascii=False, sort_keys=True),
            "completion": prompt.completion,
            "sampling": None if prompt.sampling is None else json.dumps(prompt.sampling, sort_keys=True),
            "group_id": prompt.group_id,
            "completion_token_ids": prompt.completion_token_ids,
            "completion_cut": prompt.completion_cut,
        }
        for prompt in prompts
    ]
    return pa.Table.from_pylist(rows, schema=PROMPT_SCHEMA)


def table_to_prompts(table: pa.Table) -> list[Prompt]:
    """The prompts of a table of PROMPT_SCHEMA, or of one saved when it had no `completion`, `sampling` and ids."""
    return [
        Prompt(
            row["messages"],
            row["source"],
            row["reference"],
            json.loads(row["metadata"]),
            row.get("completion"),
            None if row.get("sampling") is None else json.loads(row["sampling"]),
            row.get("completion_token_ids"),
            bool(row.get("completion_cut")),
        )
        for row in table.to_pylist()
    ]
