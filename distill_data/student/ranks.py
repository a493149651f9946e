"""A process among those that `accelerate launch` or torchrun started to train one student together."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from distill_data.student.staging import make_once

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """How many processes train together; 1 where no launcher says otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes: one of them does."""
    return world_size() == 1 or int(os.environ.get("RANK", "0")) == 0


def over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, in place; every one of them has to call it."""
    if world_size() > 1:
        import torch

        torch.distributed.all_reduce(values)
    return values


def from_main(call: Callable[[], T]) -> T:
    """What a call gives in the main process, which alone makes it, in all of them."""
    if world_size() == 1:
        return call()
    from accelerate.utils import broadcast_object_list

    _started()
    told: Any = [call() if is_main() else None]
    return broadcast_object_list(told)[0]


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if world_size() > 1:
        _started().wait_for_everyone()


def make_together(folder: Path, is_whole: Callable[[], bool], make: Callable[[Path], None]) -> None:
    """`make_once` by all processes: the main one takes the lock and names the folder, all let `make` fill it."""

    def announced(staging: Path | None) -> Path | None:
        return from_main(lambda: staging)

    def make_all(staging: Path) -> None:
        announced(staging)
        make(staging)
        wait_for_all()

    if is_main():
        there = is_whole()
        make_once(folder, is_whole, make_all)
        if there:
            announced(None)
    elif (staging := announced(None)) is not None:
        make(staging)
        wait_for_all()


def _started() -> Any:
    """The process group, on gloo where there is no accelerator."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available())
