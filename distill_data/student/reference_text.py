"""A source's own references in place of what the teacher said: what a student learns without a teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from distill_data.errors import StudentError
from distill_data.records import SOFT_LABEL_FIELDS, SOFT_LABELS_SCHEMA


def with_references(batch: pa.RecordBatch, references: list[str | None], tokenizer: Any) -> pa.RecordBatch:
    """The same prompts, each followed by its reference and EOS, without soft labels.

    Args:
        batch: SOFT_LABELS_SCHEMA, prompts in the tokenizer's tokens.
        references: of every row.
        tokenizer: the student's.

    Raises:
        StudentError: a row has no reference.
    """
    there = [text for text in references if text is not None]
    if len(there) < len(references):
        raise StudentError(
            f"{len(references) - len(there)} of {len(references)} rows have no reference to learn from: set "
            "student.train.learns: trace"
        )
    ids = [[*tokens, tokenizer.eos_token_id] for tokens in tokenizer(there, add_special_tokens=False)["input_ids"]]
    columns: dict[str, Any] = {
        "prompt_token_ids": batch.column("prompt_token_ids"),
        "completion_token_ids": ids,
        "sampled_logprobs": [np.full(len(tokens), np.nan, np.float32) for tokens in ids],
        "support_counts": [np.zeros(len(tokens), np.uint8) for tokens in ids],
        "support_ids": [[]] * len(ids),
        "support_logprobs": [[]] * len(ids),
    }
    kinds = dict(SOFT_LABEL_FIELDS)
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values, kinds[name])
        for name, values in columns.items()
    }
    return pa.record_batch({"trace_id": batch.column("trace_id"), **arrays}).cast(SOFT_LABELS_SCHEMA)
