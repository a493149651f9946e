"""Traces to batches of tensors, padded or packed, aligned with the logits.

Logits at position P+t-1 predict completion token t (P prompt tokens). A batch marks those positions in `label_mask`;
its label tensors hold one row per marked position, in the order of `logits[label_mask]`:

target_ids int64 [N], sampled_logprobs float32 [N], support_ids int64 [N, K] padded with 0, support_logprobs float32
[N, K] padded with -inf, and tail_logprobs float32 [N]: log of the probability outside the support, -inf for none.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from distill_data.student.blocks import Row

Batch = dict[str, Tensor]
_FILL = {"support_ids": 0, "target_ids": 0, "support_logprobs": -torch.inf, "tail_logprobs": -torch.inf}


class SoftLabelCollator:
    """B traces padded on the right to the L tokens of the longest, with K the widest support.

    input_ids int64 [B, L], attention_mask int64 [B, L], label_mask bool [B, L] and the label tensors.
    """

    def __init__(self, pad_token_id: int = 0):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[Row]) -> Batch:
        """One batch of these traces."""
        from distill_data.list_loops import lay_out

        prompts, lengths = _lengths(rows)
        shape = len(rows), int(lengths.max())
        inputs = {
            "input_ids": np.full(shape, self.pad_token_id, np.int64),
            "attention_mask": np.empty(shape, np.int64),
            "label_mask": np.empty(shape, np.bool_),
        }
        lay_out(_tokens(rows), prompts, lengths, *inputs.values())
        return {name: torch.from_numpy(values) for name, values in inputs.items()} | _labels(rows)


class PackedCollator:
    """Traces laid end to end in one row of L tokens, without padding, as transformers' DataCollatorWithFlattening does.

    input_ids int64 [1, L], position_ids int64 [1, L] that start at 0 with every trace, label_mask bool [1, L] and the
    label tensors. There is no attention_mask: from position_ids alone transformers keeps each trace's attention to
    itself, by block-diagonal masks or flash attention's cu_seqlens (`model.check_packing` tries it).
    """

    def __call__(self, rows: list[Row]) -> Batch:
        """One batch of these traces."""
        prompts, lengths = _lengths(rows)
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        mask = (positions >= np.repeat(prompts, lengths) - 1) & (positions < np.repeat(lengths, lengths) - 1)
        inputs = {"input_ids": _tokens(rows).astype(np.int64), "position_ids": positions, "label_mask": mask}
        return {name: torch.from_numpy(values)[None] for name, values in inputs.items()} | _labels(rows)


def as_rectangle(batch: Batch) -> Batch:
    """The label tensors as [B, L] and [B, L, K], for losses that want a row for every position.

    Positions that `label_mask` does not mark hold id 0 and log-probability -inf. The collators' own [N, K] form leaves
    them out: prompts and padding cost nothing there.
    """
    mask = batch["label_mask"]
    rectangle = {}
    for name, fill in _FILL.items():
        values = batch[name]
        rectangle[name] = values.new_full((*mask.shape, *values.shape[1:]), fill)
        rectangle[name][mask] = values
    return rectangle


def _lengths(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Prompt tokens, and prompt and completion tokens, of every trace: int64 [B] each."""
    prompts = np.array([len(row["prompt_token_ids"]) for row in rows])
    return prompts, prompts + np.array([len(row["completion_token_ids"]) for row in rows])


def _tokens(rows: list[Row]) -> np.ndarray:
    """Prompt and completion of one trace after the other: int32."""
    return np.concatenate([row[name] for row in rows for name in ("prompt_token_ids", "completion_token_ids")])


def _labels(rows: list[Row]) -> Batch:
    """The label tensors of the traces' completion tokens, trace after trace."""
    from distill_data.list_loops import logs_of_rest, probability_sums

    ids, logprobs = _supports(rows)
    tail = np.empty(len(logprobs), np.float32)
    probability_sums(logprobs.numpy(), tail)
    logs_of_rest(tail)
    return {
        "target_ids": torch.from_numpy(_flat(rows, "completion_token_ids", np.int64)),
        "sampled_logprobs": torch.from_numpy(_flat(rows, "sampled_logprobs")),
        "support_ids": ids,
        "support_logprobs": logprobs,
        "tail_logprobs": torch.from_numpy(tail),
    }


def _supports(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Ids and log-probabilities as rectangles: [N, K] each."""
    counts = _flat(rows, "support_counts")
    logprobs = torch.from_numpy(_flat(rows, "support_logprobs")).float()  # in a fifth of numpy's time
    shape = len(counts), int(counts.max(initial=1))
    if len(logprobs) == math.prod(shape):  # every position keeps K tokens
        return torch.from_numpy(_flat(rows, "support_ids", np.int64)).view(shape), logprobs.view(shape)
    from distill_data.list_loops import pad_rows

    ids, padded = np.empty(shape, np.int64), np.empty(shape, np.float32)
    pad_rows(counts, _flat(rows, "support_ids"), logprobs.numpy(), ids, padded)
    return torch.from_numpy(ids), torch.from_numpy(padded)


def _flat(rows: list[Row], name: str, kind: type[np.generic] | None = None) -> np.ndarray:
    return np.concatenate([row[name] for row in rows], dtype=kind)
