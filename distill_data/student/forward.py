"""Run a student quietly, and compute hidden states or logits only where a batch has labels."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging


def logit_chunks(
    model: Any, head: nn.Linear | None, batch: dict[str, Tensor], rows: int
) -> Iterator[tuple[slice, Tensor]]:
    """Logits [C, V] at the positions with labels, at most `rows` at a time, and which of these positions they are.

    With `plain_head(model)` no more logits than these are ever made.
    """
    if head is not None:
        hidden = label_hidden(model, batch)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            yield part, head(hidden[part])
        return
    logits, mask = batch_logits(model, batch)
    flat, index = logits.flatten(0, 1), mask.flatten().nonzero()[:, 0]
    for start in range(0, len(index), rows):
        part = slice(start, start + rows)
        yield part, flat[index[part]]


def batch_logits(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits [B, L', V] of the last L' positions of a batch, and which of them have labels: bool [B, L'].

    Positions before the first one with labels never reach the output head, where the model knows `logits_to_keep`.
    """
    mask = batch["label_mask"]
    options: dict[str, Any] = {"use_cache": False}
    if "logits_to_keep" in inspect.signature(getattr(model, "module", model).forward).parameters:
        keep = mask.shape[1] - int(mask.any(0).int().argmax())
        options["logits_to_keep"] = keep
        mask = mask[:, -keep:]
    return model(**_inputs(batch), **options).logits, mask


def label_hidden(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """What `plain_head(model)` makes the logits of: hidden states [N, H] at the N positions with labels."""
    return model.base_model(**_inputs(batch), use_cache=False).last_hidden_state[batch["label_mask"]]


@torch.no_grad()
def plain_head(model: Any) -> nn.Linear | None:
    """The output head, where the model's logits are head(its base model's hidden states) and no more, else None.

    One forward pass shows it: what enters the head has to be what left the base model, and big values put in place of
    what leaves the head have to reach the caller as they are. Softcaps, logit scales and adapters do not pass.
    """
    head, base = model.get_output_embeddings(), model.base_model
    hooked = head is not None and ("forward" in vars(head) or head._forward_hooks or head._forward_pre_hooks)
    if type(head) is not nn.Linear or hooked or base is model:
        return None
    left_base: list[Tensor | None] = []
    entered_head: list[Tensor] = []
    left_head: list[Tensor] = []

    def watch_base(module: nn.Module, arguments: Any, output: Any) -> None:
        left_base.append(getattr(output, "last_hidden_state", None))

    def replace_logits(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        entered_head.extend(arguments[:1])
        left_head.append(torch.linspace(-3e4, 3e4, output.numel()).reshape(output.shape).to(output))
        return left_head[-1].clone()  # what follows may work in place

    hooks = [base.register_forward_hook(watch_base), head.register_forward_hook(replace_logits)]
    training = model.training
    model.eval()
    try:
        logits = model(input_ids=torch.tensor([[1, 2, 3]], device=model.device), use_cache=False).logits
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    if len(left_base) != 1 or len(entered_head) != 1 or left_base[0] is None:
        return None
    same = torch.equal(left_base[0].to(entered_head[0]), entered_head[0])
    return head if same and torch.equal(logits, left_head[0].to(logits)) else None


def _inputs(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids") if name in batch}


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
