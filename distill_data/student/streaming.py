"""Soft labels as an iterable PyTorch dataset: read from a version's files as training goes, in bounded memory.

Every epoch has an order of its own, by seed and epoch: row groups are shuffled and cut into equal shares of traces, one
per data-parallel rank and dataloader worker. Of a share some row groups are open at a time and read side by side, a
chunk of each, and the traces of these chunks are shuffled together. A position counts the traces of a share, so that
reading can go on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from distill_data.corpus.data_file import RowGroup
from distill_data.errors import StudentError
from distill_data.student.blocks import COLUMNS, Block, Row
from distill_data.student.dataset import too_long_error
from distill_data.student_config import Unlabelled

CHUNK_ROWS = 256
_LENGTH_ROWS = 4096


class Share(NamedTuple):
    """Part `index` of the `of` equal parts of an epoch."""

    index: int
    of: int

    def span(self, traces: int) -> tuple[int, int]:
        """Where it begins and ends in the epoch's order."""
        return traces * self.index // self.of, traces * (self.index + 1) // self.of


class SoftLabelStream(IterableDataset[Row]):
    """Traces of row groups, one an item; all ranks and workers together give every one of them once per epoch.

    Ranks give equally many, give or take one, and so may differ by a batch: where all have to step together (DDP), end
    an epoch with the first that ends (`torch.distributed.algorithms.Join`, or a number of steps). Traces longer than
    `max_length` (prompt and completion tokens) are left out and counted in `too_long`; `traces` counts the others. In
    memory are CHUNK_ROWS traces of each of `open_groups` row groups per worker, the pages that these are on, and four
    bytes for every trace there is.

    The iteration after one that came to its end is the next epoch's; a dataloader that starts its workers anew each
    epoch needs `set_epoch` for that. `state_dict` and `load_state_dict` are those of torchdata's StatefulDataLoader,
    which calls them in its workers; with a plain DataLoader without workers call them between batches.

    Args:
        groups: `Corpus.row_groups("soft_labels", split)`.
        max_length: tokens of the longest trace to give.
        seed: of the order.
        open_groups: row groups that are read side by side.
        rank: (rank, world size). Left out: torch.distributed's where it is initialised by now, else (0, 1). With
            transformers' Trainer and accelerate give (0, 1): they divide what they are given.
        unlabelled: student.train.loss.unlabelled.

    Raises:
        CorpusError: a file cannot be read.
        StudentError: no trace is left.
    """

    def __init__(
        self,
        groups: Sequence[RowGroup],
        max_length: int,
        *,
        seed: int = 0,
        open_groups: int = 4,
        rank: tuple[int, int] | None = None,
        unlabelled: Unlabelled = "refuse",
    ):
        self._groups = list(groups)
        self._unlabelled: Unlabelled = unlabelled
        if not self._groups:
            raise StudentError("there are no traces: build a corpus that keeps some first")
        lengths = [_trace_lengths(group) for group in self._groups]
        self._kept = [np.flatnonzero(rows <= max_length).astype(np.int32) for rows in lengths]
        self.traces = sum(map(len, self._kept))
        self.too_long = sum(map(len, lengths)) - self.traces
        if not self.traces:
            raise too_long_error(self.too_long, max_length, min(int(rows.min()) for rows in lengths))
        self._seed, self._open_groups = seed, open_groups
        self._order = {
            "row_groups": len(self._groups),
            "traces": self.traces,
            "too_long": self.too_long,
            "seed": seed,
            "open_groups": open_groups,
        }
        self._rank = rank or _distributed_rank()
        self._epoch, self._position = 0, 0  # of the iteration that goes on
        self._loaded: tuple[int, Share] | None = None  # position for the next one, and whose
        self._ended = False  # the position stays until then: other workers may not have come to their end

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is this epoch's; a loaded position stays if it is of this epoch."""
        if epoch != self._epoch:
            self._epoch, self._position, self._loaded = epoch, 0, None
        self._ended = False

    def state_dict(self) -> dict[str, Any]:
        """Where this rank and worker stands, and in which order: what `load_state_dict` takes."""
        return {
            "epoch": self._epoch,
            "position": self._position,
            "share": list(self._share()),
            "order": self._order,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration begin behind the last trace that was given.

        That the share is the same, the iteration checks.

        Raises:
            StudentError: files, seed, max_length or open_groups are others, so that the order is.
        """
        if (theirs := state.get("order", self._order)) != self._order:
            raise StudentError(
                f"the position is one among {theirs} and this stream has {self._order}: go on with the corpus version, "
                "seed, max_length and open_groups of before"
            )
        self._epoch, self._position = state["epoch"], state["position"]
        self._loaded, self._ended = (state["position"], Share(*state["share"])), False

    def __iter__(self) -> Iterator[Row]:
        share = self._share()
        self._epoch, self._ended = self._epoch + self._ended, False
        self._position = self._start(share)
        skip = self._position
        for window, (opened, traces) in enumerate(self._windows(share)):
            if skip >= len(traces):
                skip -= len(traces)
                continue
            order = np.random.default_rng((self._seed, self._epoch, *share, window)).permutation(traces)
            yield from self._read(opened, order[skip:])
            skip = 0
        self._ended = True

    def _start(self, share: Share) -> int:
        """The loaded position, if one was loaded since the last iteration."""
        position, saved = self._loaded or (0, share)
        self._loaded = None
        if position and saved != share:
            raise StudentError(
                f"this reader is number {share.index} of {share.of} and its position was saved by number {saved.index} "
                f"of {saved.of}: go on with as many ranks and dataloader workers as before"
            )
        return position

    def _windows(self, share: Share) -> Iterator[tuple[dict[int, _OpenGroup], np.ndarray]]:
        """Traces to be shuffled together, one array after the other: int64 [n, 2], row group and row."""
        pieces = self._pieces(share)
        for first in range(0, len(pieces), self._open_groups):
            traces = np.concatenate(pieces[first : first + self._open_groups])
            opened = {
                group: _OpenGroup(self._groups[group], self._unlabelled) for group in np.unique(traces[:, 0]).tolist()
            }
            chunks = traces[:, 1] // CHUNK_ROWS
            for chunk in np.unique(chunks):
                yield opened, traces[chunks == chunk]

    def _pieces(self, share: Share) -> list[np.ndarray]:
        """Row groups in this epoch's order, and of each the traces of this share: int64 [n, 2], none empty."""
        order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._groups))
        start, stop = share.span(self.traces)
        pieces, end = [], 0
        for group in order.tolist():
            begin, end = end, end + len(self._kept[group])
            rows = self._kept[group][max(start - begin, 0) : max(stop - begin, 0)]
            if len(rows):
                pieces.append(np.stack([np.full(len(rows), group), rows], axis=1))
        return pieces

    def _read(self, opened: dict[int, _OpenGroup], traces: np.ndarray) -> Iterator[Row]:
        """These traces, all of one chunk of each row group."""
        chunk = int(traces[0, 1]) // CHUNK_ROWS
        blocks = {group: opened[group].chunk(chunk) for group in np.unique(traces[:, 0]).tolist()}
        for group, row in traces.tolist():
            self._position += 1
            yield blocks[group].row(row % CHUNK_ROWS)

    def _share(self) -> Share:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        rank, ranks = self._rank
        return Share(rank * workers + number, ranks * workers)


class _OpenGroup:
    """A row group that is read chunk by chunk, forwards only."""

    def __init__(self, group: RowGroup, unlabelled: Unlabelled):
        self._unlabelled: Unlabelled = unlabelled
        self._batches = enumerate(group.batches(["trace_id", *COLUMNS], CHUNK_ROWS))

    def chunk(self, number: int) -> Block:
        """Rows CHUNK_ROWS x number and on."""
        return next(Block(batch, self._unlabelled) for at, batch in self._batches if at == number)


def _trace_lengths(group: RowGroup) -> np.ndarray:
    """Prompt and completion tokens of every trace: [rows]."""
    batches = group.batches(["prompt_token_ids", "completion_token_ids"], _LENGTH_ROWS)
    return np.concatenate([sum(np.diff(column.offsets.to_numpy()) for column in batch.columns) for batch in batches])


def _distributed_rank() -> tuple[int, int]:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
