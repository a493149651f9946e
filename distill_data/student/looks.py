"""Looks at held-out traces during training that are written down and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill_data.student.metrics import Metrics


class Looks(TrainerCallback):
    """Writes what `measure(model)` says into the metrics: before the first step, every few steps, and at the end."""

    def __init__(self, every: int, measure: Callable[[Any], dict[str, float]], metrics: Metrics):
        self._every, self._measure, self._metrics = every, measure, metrics

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The student as it begins; a training that goes on has looked already."""
        if state.global_step == 0:
            self._metrics.add(0, **self._measure(kwargs["model"]))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Looks, if it is time."""
        if state.global_step % self._every == 0 or state.global_step == state.max_steps:
            self._metrics.add(state.global_step, **self._measure(kwargs["model"]))
