"""Looks at held-out traces during training, and its end where these stop getting better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill_data.student import ranks
from distill_data.student.checkpoints import BEST_PREFIX
from distill_data.student.metrics import Metrics
from distill_data.student.result import EvaluationResult
from distill_data.student_config import EarlyStopping

_VALUE = "held_out_kl"


class HeldOutLooks(TrainerCallback):
    """Measures the student every few steps, keeps the weights that were best, and ends training after `patience`.

    The best weights (of those that train) are in a file of `folder` named by their step; `restore_best` puts them back.
    What earlier looks found is read from the metrics, so that a training that goes on knows them. A file that a
    checkpoint may go back to is kept until the next one is written. Of processes that train together, all look, and the
    main one has the files.
    """

    def __init__(self, rule: EarlyStopping, measure: Callable[[Any], EvaluationResult], metrics: Metrics, folder: Path):
        self._rule, self._measure, self._metrics, self._folder = rule, measure, metrics, folder

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Looks, if it is time."""
        if state.global_step % self._rule.every == 0:
            self._look(state.global_step, kwargs["model"], control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Forgets weights that were best once: no training goes back before this checkpoint."""
        best = self._best_step()
        for file in self._folder.glob(f"{BEST_PREFIX}*") if ranks.is_main() else ():
            if best is None or file != self._file(best):
                file.unlink()

    def _best_step(self) -> int | None:
        looks = self._metrics.of(_VALUE)
        return min(looks, key=lambda line: line[_VALUE])["step"] if looks else None

    def _file(self, step: int) -> Path:
        return self._folder / f"{BEST_PREFIX}{step}.safetensors"

    def _look(self, step: int, model: Any, control: TrainerControl) -> None:
        found = self._measure(model)
        earlier = [line[_VALUE] for line in self._metrics.of(_VALUE)]
        self._metrics.add(step, held_out_kl=found.distance, held_out_cross_entropy=found.cross_entropy)
        if found.distance < min(earlier, default=float("inf")):
            if ranks.is_main():
                _save(model, self._file(step))
        elif looks_without_gain([*earlier, found.distance]) >= self._rule.patience:
            control.should_training_stop = True

    def restore_best(self, model: Any) -> int | None:
        """Give the main process' model the best weights again; at which step they were, None where nobody looked."""
        if (best := self._best_step()) is None or not ranks.is_main():
            return best
        weights = load_file(self._file(best))
        with torch.no_grad():
            for name, values in _trained(model).items():
                values.copy_(weights[name])
        return best


def looks_without_gain(values: list[float]) -> int:
    """How many values came after the lowest one, the first of equal ones."""
    return len(values) - 1 - values.index(min(values))


def _trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: values for name, values in model.named_parameters() if values.requires_grad}


def _save(model: Any, file: Path) -> None:
    half = file.with_suffix(".half")
    save_file({name: values.detach().contiguous() for name, values in _trained(model).items()}, half)
    half.replace(file)
