"""Traces as an Arrow table, column by column, and the hash of what a trace says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from distill_data.records import PART_SCHEMA, Trace

_DIGEST_LENGTH = 32


def traces_to_table(traces: Sequence[Trace]) -> pa.Table:
    """Traces as a table of PART_SCHEMA, column by column."""
    tokens = [len(trace.completion_token_ids) for trace in traces]
    logprobs = [trace.soft_labels.sampled_logprobs for trace in traces]
    columns = {
        "prompt_id": [trace.prompt_id for trace in traces],
        "sample_index": [trace.sample_index for trace in traces],
        "content_digest": [content_digest(trace) for trace in traces],
        "completion": [trace.completion for trace in traces],
        "prompt_suffix": [trace.prompt_suffix for trace in traces],
        "finish_reason": [trace.finish_reason for trace in traces],
        "error": [trace.error for trace in traces],
        "error_detail": [trace.error_detail for trace in traces],
        "prompt_tokens": [len(trace.prompt_token_ids) for trace in traces],
        "completion_tokens": tokens,
        "mean_logprob": [float(values.mean()) if len(values) else None for values in logprobs],
        "prompt_token_ids": _lists((trace.prompt_token_ids for trace in traces), pa.int32()),
        "completion_token_ids": _lists((trace.completion_token_ids for trace in traces), pa.int32()),
        "sampled_logprobs": _lists(logprobs, pa.float32()),
        "support_counts": _lists((trace.soft_labels.support_counts for trace in traces), pa.uint8()),
        "support_ids": _lists((trace.soft_labels.support_ids for trace in traces), pa.int32()),
        "support_logprobs": _lists((trace.soft_labels.support_logprobs for trace in traces), pa.float16()),
    }
    return pa.table(columns, schema=PART_SCHEMA)


def content_digest(trace: Trace) -> str:
    """Hash (32 hex digits) of what a trace says: ids, distributions and outcome, not where it is stored."""
    state = hashlib.sha256()
    labels = trace.soft_labels
    for array in (
        trace.prompt_token_ids,
        trace.completion_token_ids,
        labels.sampled_logprobs,
        labels.support_counts,
        labels.support_ids,
        labels.support_logprobs,
    ):
        state.update(len(array).to_bytes(8, "little"))
        state.update(np.ascontiguousarray(array).data)
    state.update(json.dumps([trace.finish_reason, trace.error, trace.completion]).encode())
    return state.hexdigest()[:_DIGEST_LENGTH]


def _lists(arrays: Iterable[np.ndarray], kind: pa.DataType) -> pa.ListArray:
    """A list column from one numpy array per row, without a Python object per element."""
    rows = list(arrays)
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int32)
    values = np.concatenate(rows).astype(kind.to_pandas_dtype(), copy=False) if rows else []
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, type=kind))
