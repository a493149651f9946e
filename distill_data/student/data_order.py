"""The order that a map-style dataset is trained in: decided by seed and epoch alone.

So a training that goes on from a checkpoint, and several processes that train together, have the order of one process
that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGrouped(Sampler[int]):
    """Items in random order, with those of about the same length side by side (as `LengthGroupedSampler` has them).

    Args:
        lengths: tokens of every item.
        together: items that are to be about as long: those of a step.
        seed: of the order, with the epoch.
    """

    def __init__(self, lengths: np.ndarray, together: int, seed: int):
        self._lengths, self._together, self._seed = lengths.tolist(), together, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is given next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        (seed,) = np.random.SeedSequence((self._seed, self._epoch)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed))
        return iter(get_length_grouped_indices(self._lengths, self._together, generator=generator))


class EpochOrder(TrainerCallback):
    """Tells the sampler which epoch begins.

    The Trainer does so itself, but not through the two layers that accelerate puts around the batches of one of several
    processes that goes on from a checkpoint: there every epoch would have the order of the first.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Reaches below whatever wraps the sampler."""
        batches: Any = kwargs["train_dataloader"].batch_sampler
        while hasattr(batches, "batch_sampler"):
            batches = batches.batch_sampler
        if hasattr(batches.sampler, "set_epoch"):
            batches.sampler.set_epoch(int(state.epoch or 0))
