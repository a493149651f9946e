"""Run a student quietly, and compute logits only where a batch has labels."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers.utils import logging as transformers_logging


def label_logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Logits [N, V], in the model's precision, at the N positions that `batch["label_mask"]` marks.

    Positions before the first marked one never reach the output head, where the model knows `logits_to_keep`.
    """
    mask = batch["label_mask"]
    options: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        keep = mask.shape[1] - int(mask.any(0).int().argmax())
        options["logits_to_keep"] = keep
        mask = mask[:, -keep:]
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **options)
    return output.logits[mask]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and only errors from transformers, inside the block."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
