from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, SeedableRandomSampler
from torch.utils.data import BatchSampler
from transformers import TrainerControl, TrainingArguments

from distill_data.student.data_order import EpochOrder, LengthGrouped

LENGTHS = np.arange(40) * 7 % 23


def grouped(seed: int = 0, epoch: int = 0) -> list[int]:
    sampler = LengthGrouped(LENGTHS, 8, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_order_is_one_of_a_seed_and_an_epoch() -> None:
    assert grouped(1, 2) == grouped(1, 2)
    assert len({tuple(grouped(*pair)) for pair in ((0, 0), (0, 1), (1, 0), (1, 1))}) == 4
    assert sorted(grouped()) == list(range(40))
    many = np.tile(LENGTHS, 10)
    steps = many[list(LengthGrouped(many, 8, 0))].reshape(-1, 8)
    assert np.ptp(steps, axis=1).mean() < np.ptp(many) / 4


def loader(sampler: Any, processes: int, rank: int) -> Any:
    """What accelerate makes of it in one of several processes."""
    batches: Any = BatchSampler(sampler, 4, drop_last=False)
    if processes > 1:
        batches = BatchSamplerShard(batches, processes, rank)
    return DataLoaderShard(list(range(40)), batch_sampler=batches)  # type: ignore[arg-type]


def begin(trained: Any, epoch: int) -> None:
    state: Any = SimpleNamespace(epoch=epoch + 0.4)
    EpochOrder().on_epoch_begin(TrainingArguments(), state, TrainerControl(), train_dataloader=trained)


@pytest.mark.parametrize("make", [lambda: LengthGrouped(LENGTHS, 8, 0), lambda: SeedableRandomSampler(range(40))])
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_that_go_on_have_the_order_of_one_that_never_stopped(make: Any, processes: int) -> None:
    whole: Any = loader(make(), 1, 0)
    begin(whole, 2)
    whole.set_epoch(2)
    steps = np.array([batch.tolist() for batch in whole]).reshape(-1, processes, 4)
    for rank in range(processes):
        trained = loader(make(), processes, rank)
        begin(trained, 2)
        rest: Any = skip_first_batches(trained, 2)
        rest.set_epoch(2)  # as the Trainer does
        assert [batch.tolist() for batch in rest] == steps[2:, rank].tolist()
