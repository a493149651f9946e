"""DistillKit's capture of distributions, rebuilt to be measured: what its files hold, and what is read back from them.

Read in arcee-ai/DistillKit: README.md 43f6e1b (the two configurations), compression/config.py 897bd13,
sample_logits_vllm.py 03b326e, sample_common.py 40198e1, lossfuncs/common.py a61c2e7 and kl.py 361c7ac; its codec in
two projects that took it over, AliasJeff/alias-distill-kit at bf806f0 and allenai/open-instruct at 0233fc6. What holds
there and is assumed here:

- The k likeliest log-probabilities, sorted. The first are kept in bfloat16; through the others goes one polynomial in
  their ranks 0, 1, 2, ... as they are (`normalize_t` is off), with float32 coefficients and no residuals.
- The fit is a float32 pseudo-inverse from an SVD whose singular values under 1e-5 are left out. Powers of ranks up to
  111 span eight decades, so it is not the best fit, and not the same one with another number of threads: use one.
- Ids are packed in ceil(log2(d)) bits each, likeliest first; d is the tokenizer's size + 1.
- A file is pyarrow's default Parquet of `input_ids` list<uint64> and two lists of lists of uint8. DistillKit labels the
  prompt's tokens too; here only the completion's positions have a row, so that bytes are those of a completion token.
- Loss: `zero`, its default, renormalises the teacher over the support; `symmetric_uniform` takes the tail as one bucket
  on both sides. Its clamps at 1e-6 of probability are left out.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

_CUTOFF = 1e-5  # of singular values
_MAX_ROWS = 256  # of a file


@dataclass(frozen=True)
class Capture:
    """A configuration: tokens kept, how many of them exactly, and the powers of ranks that stand for the others."""

    kept: int
    exact: int
    powers: tuple[float, ...]


RECOMMENDED = Capture(128, 16, (0, 1, 2, 3, 4, 0.5))
BUDGET = Capture(50, 1, (0, 1, 0.5))


@dataclass(frozen=True)
class Stored:
    """What a file holds of N positions: uint8 [N, bytes] each."""

    logprobs: np.ndarray
    ids: np.ndarray


def captured(capture: Capture, log_p: np.ndarray, ids: np.ndarray, vocabulary: int) -> tuple[Stored, np.ndarray]:
    """What is stored, and the log-probabilities that come back: float32 [N, kept].

    Args:
        capture: the configuration.
        log_p: float32 [N, >= kept], likeliest first.
        ids: int32, of the same shape.
        vocabulary: tokens that the tokenizer knows.
    """
    values = torch.from_numpy(log_p[:, : capture.kept])
    exact = values[:, : capture.exact].bfloat16()
    terms = _terms(capture, values.shape[1] - capture.exact)
    coefficients = _fit(terms, values[:, capture.exact :])
    fitted = (terms * coefficients[:, None, :]).sum(-1)
    parts = [exact.view(torch.uint8), coefficients.view(torch.uint8)]
    stored = Stored(torch.cat(parts, 1).numpy(), _packed(ids[:, : capture.kept], vocabulary + 1))
    return stored, torch.cat([exact.float(), fitted], 1).numpy()


def _terms(capture: Capture, ranks: int) -> Tensor:
    """Powers of the ranks: float32 [ranks, powers]."""
    at = torch.arange(ranks, dtype=torch.float32)
    return torch.stack([at.sqrt() if power == 0.5 else at**power for power in capture.powers], 1)


def _fit(terms: Tensor, values: Tensor) -> Tensor:
    """Coefficients of every position: float32 [N, powers]."""
    left, singular, right = torch.linalg.svd(terms, full_matrices=False)
    inverse = torch.where(singular > _CUTOFF, 1 / singular, 0.0)
    projected = left.T @ values.T
    return (right.T @ (inverse[:, None] * projected)).T.contiguous()


def _packed(ids: np.ndarray, size: int) -> np.ndarray:
    """Ids in as few bits as `size` of them need, the highest first: uint8 [N, bytes]."""
    bits = math.ceil(math.log2(size))
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((ids[:, :, None] >> shifts & 1).astype(np.uint8).reshape(len(ids), -1), axis=1)


def file_bytes(traces: pa.Table, stored: Stored) -> dict[str, int]:
    """Bytes of the files with these traces: of every column, and of `all` with their metadata."""
    prompts, completions = (traces[name].to_pylist() for name in ("prompt_token_ids", "completion_token_ids"))
    offsets = np.cumsum([0, *map(len, completions)])
    tokens = pa.array([one + other for one, other in zip(prompts, completions, strict=True)], pa.list_(pa.uint64()))
    table = pa.table(
        {
            "input_ids": tokens,
            "compressed_logprobs": _nested(offsets, stored.logprobs),
            "bytepacked_indices": _nested(offsets, stored.ids),
        }
    )
    found = dict.fromkeys(["all", *table.column_names], 0)
    for first in range(0, len(table), _MAX_ROWS):
        file = io.BytesIO()
        pq.write_table(table.slice(first, _MAX_ROWS), file)
        found["all"] += file.tell()
        group = pq.read_metadata(file).row_group(0)
        for column in (group.column(number) for number in range(group.num_columns)):
            found[column.path_in_schema.split(".")[0]] += column.total_compressed_size
    return found


def _nested(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    inner = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.ListArray.from_arrays(inner, flat))
