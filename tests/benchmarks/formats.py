"""Ways to keep distributions: which labels they make of full ones, and what file holds them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from distill_data.corpus.write import PAGE_PER_CHUNK
from distill_data.parquet import write_options
from distill_data.records import SOFT_LABELS_SCHEMA, SoftLabels
from distill_data.soft_labels import round_logprobs, select_drawn, select_support, support_offsets
from distill_data.teacher_config import SoftLabelSelection
from distill_data.teachers.vllm_draws import systematic_draws
from tests.benchmarks import distillkit
from tests.benchmarks.distributions import Distributions, Measured
from tests.benchmarks.workload import in_pages

SHARPER = {"plain": 1.0, "sharp": 2.0}  # what logits are multiplied by
_ROWS = 256


@dataclass(frozen=True)
class Kept:
    """Soft labels, with ranks in place of ids where `ranked`, and how the loss takes them.

    `draws` are those that they come from, if they do; a `renormalised` support sums to one and leaves no tail; `stored`
    is what DistillKit's file holds of them.
    """

    labels: SoftLabels
    draws: int | None = None
    ranked: SoftLabels | None = None
    renormalised: bool = False
    stored: distillkit.Stored | None = None


@dataclass(frozen=True)
class Format:
    """`keep` takes everything and `plain` or `sharp`; `file` says in how many bytes the labels fit."""

    name: str
    keep: Callable[[Measured, str], Kept]
    file: Callable[[pa.Table, Kept], dict[str, int]]


def likeliest(found: Measured, kind: str, selection: SoftLabelSelection) -> Kept:
    """The likeliest tokens, as `selection` says."""
    seen: Distributions = getattr(found, kind)
    ranks = np.broadcast_to(np.arange(seen.log_p.shape[1], dtype=np.int32), seen.log_p.shape)
    return _with_ids(select_support(ranks, seen.log_p, seen.sampled, selection), seen)


def drawn(found: Measured, kind: str, draws: int) -> Kept:
    """What systematic draws meet, as an engine makes them."""
    generator = torch.Generator().manual_seed(0)
    pieces = []
    for rows, logprobs in _full(found, kind):
        offsets = torch.rand((len(logprobs), 1), dtype=torch.float64, generator=generator)
        ids = systematic_draws(logprobs, draws, offsets)
        kept = SoftLabelSelection(kind="sampled", draws=draws)
        values = logprobs.gather(1, ids).numpy()
        pieces.append(select_drawn(ids.numpy(), values, getattr(found, kind).sampled[rows], kept))
    return Kept(_joined(pieces), draws)


def drawn_independently(found: Measured, kind: str, draws: int) -> Kept:
    """Independent draws, as Sparse Logit Sampling makes them: probabilities are shares of the draws."""
    generator = torch.Generator().manual_seed(0)
    pieces = []
    for rows, logprobs in _full(found, kind):
        shares = torch.zeros_like(logprobs)
        where = torch.multinomial(logprobs.exp(), draws, replacement=True, generator=generator)
        shares.scatter_add_(1, where, torch.full(where.shape, 1 / draws))
        values, ids = shares.topk(draws, dim=1)
        met = (values > 0).numpy()
        pieces.append(
            SoftLabels(
                sampled_logprobs=getattr(found, kind).sampled[rows],
                support_counts=met.sum(1).astype(np.uint8),
                support_ids=ids.numpy()[met].astype(np.int32),
                support_logprobs=round_logprobs(np.log(values.numpy()[met]), "float16"),
            )
        )
    return Kept(_joined(pieces))


def captured_by_distillkit(found: Measured, kind: str, capture: distillkit.Capture, renormalised: bool) -> Kept:
    """What DistillKit reads back of its capture; its loss renormalises that, or takes the tail as one bucket."""
    seen: Distributions = getattr(found, kind)
    stored, values = distillkit.captured(capture, seen.log_p, seen.top_ids, found.heads.shape[1])
    if renormalised:
        values = torch.log_softmax(torch.from_numpy(values), 1).numpy()
    rows, kept = values.shape
    ranked = SoftLabels(
        sampled_logprobs=seen.sampled,
        support_counts=np.full(rows, kept, np.uint8),
        support_ids=np.tile(np.arange(kept, dtype=np.int32), rows),
        support_logprobs=values.reshape(-1),
    )
    return replace(_with_ids(ranked, seen), renormalised=renormalised, stored=stored)


def flat_file(traces: pa.Table, labels: SoftLabels) -> pa.Table:
    """Rows of SOFT_LABELS_SCHEMA."""
    completions = traces["completion_token_ids"].combine_chunks()
    tokens = completions.offsets.to_numpy()
    support = support_offsets(labels.support_counts)[tokens]
    columns = {
        "trace_id": pa.array([f"{7919 * row:08x}-{104729 * row:032x}-0" for row in range(len(traces))]),
        "prompt_token_ids": traces["prompt_token_ids"],
        "completion_token_ids": completions,
        "sampled_logprobs": _lists(tokens, labels.sampled_logprobs),
        "support_counts": _lists(tokens, labels.support_counts),
        "support_ids": _lists(support, labels.support_ids),
        "support_logprobs": _lists(support, labels.support_logprobs.astype(np.float16)),
    }
    return pa.table(columns, schema=SOFT_LABELS_SCHEMA)


def published_bytes(traces: pa.Table, kept: Kept) -> dict[str, int]:
    """Of a corpus' own file."""
    table = in_pages(flat_file(traces, kept.labels))
    return bytes_by_column(table, write_options(table.schema) | PAGE_PER_CHUNK)


def nested_bytes(traces: pa.Table, kept: Kept) -> dict[str, int]:
    """Of lists of lists, per position ids as int32 and log-probabilities as float32, as pyarrow writes them."""
    labels = kept.labels
    flat = flat_file(traces, labels)
    inner, outer = support_offsets(labels.support_counts), traces["completion_token_ids"].combine_chunks().offsets
    values = {"support_ids": labels.support_ids, "support_logprobs": labels.support_logprobs.astype(np.float32)}
    for name, array in values.items():
        nested = pa.ListArray.from_arrays(outer, _lists(inner, array))
        flat = flat.set_column(flat.schema.get_field_index(name), name, nested)
    return bytes_by_column(flat.drop_columns(["support_counts"]), {})


def distillkit_bytes(traces: pa.Table, kept: Kept) -> dict[str, int]:
    """Of the files that DistillKit writes."""
    assert kept.stored is not None
    return distillkit.file_bytes(traces, kept.stored)


def bytes_by_column(table: pa.Table, options: dict[str, Any]) -> dict[str, int]:
    """Bytes of a file with this table: of every column, and of `all` with its metadata."""
    file = io.BytesIO()
    with pq.ParquetWriter(file, table.schema, **options) as writer:
        writer.write_table(table)
    found: dict[str, int] = {"all": file.tell()}
    group = pq.read_metadata(file).row_group(0)
    for column in (group.column(number) for number in range(group.num_columns)):
        found[column.path_in_schema.split(".")[0]] = column.total_compressed_size
    return found


def _with_ids(ranked: SoftLabels, seen: Distributions) -> Kept:
    rows = np.repeat(np.arange(len(ranked.support_counts)), ranked.support_counts)
    return Kept(replace(ranked, support_ids=seen.top_ids[rows, ranked.support_ids]), ranked=ranked)


def _full(found: Measured, kind: str) -> Iterator[tuple[slice, torch.Tensor]]:
    """Log-probabilities over the whole vocabulary: float32 [rows, V], some positions at a time."""
    head = torch.from_numpy(found.heads[0])
    for start in range(0, len(found.plain.kl), _ROWS):
        rows = slice(start, start + _ROWS)
        yield rows, torch.log_softmax(SHARPER[kind] * (torch.from_numpy(found.states[0][rows]) @ head.T), 1)


def _joined(pieces: list[SoftLabels]) -> SoftLabels:
    return SoftLabels(*(np.concatenate(values) for values in zip(*(vars(one).values() for one in pieces), strict=True)))


def _lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def _preset(name: Any) -> Format:
    return Format(name, partial(likeliest, selection=SoftLabelSelection(preset=name)), published_bytes)


_TOP_32 = SoftLabelSelection(min_prob=0.0, max_support=32)
FORMATS = [
    *map(_preset, ("compact", "balanced", "faithful")),
    Format("sampled, 25 draws", partial(drawn, draws=25), published_bytes),
    Format("sampled, 50 draws", partial(drawn, draws=50), published_bytes),
    Format("sampled, 200 draws", partial(drawn, draws=200), published_bytes),
    Format("50 independent draws", partial(drawn_independently, draws=50), published_bytes),
    Format("top 32, flat", partial(likeliest, selection=_TOP_32), published_bytes),
    Format(
        "top 32, nested lists of float32",
        partial(likeliest, selection=_TOP_32.model_copy(update={"rounding": "float16"})),
        nested_bytes,
    ),
    *(
        Format(
            f"DistillKit {name}, {loss}",
            partial(captured_by_distillkit, capture=capture, renormalised=loss == "zero"),
            distillkit_bytes,
        )
        for name, capture in {"recommended": distillkit.RECOMMENDED, "budget": distillkit.BUDGET}.items()
        for loss in ("zero", "symmetric_uniform")
    ),
]
