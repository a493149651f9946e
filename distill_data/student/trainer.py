"""The transformers Trainer with the distillation loss, and the callback that keeps its loss curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distill_data.errors import StudentError
from distill_data.student import ranks
from distill_data.student.chunked_loss import Labels, head_loss, logits_loss
from distill_data.student.data_order import EpochOrder, LengthGrouped
from distill_data.student.forward import batch_logits, label_hidden, plain_head
from distill_data.student.losses import MixedLoss
from distill_data.student.metrics import Metrics
from distill_data.student_config import Loss


@dataclass(frozen=True)
class LossPoint:
    """One optimizer step: losses in nats per completion token, of the batches of all processes before the step."""

    step: int
    loss: float
    kl: float
    cross_entropy: float
    learning_rate: float


@dataclass(frozen=True)
class TrainProgress:
    """Where training stands after a step; `tokens` as in TrainResult."""

    steps: int
    point: LossPoint
    tokens: int


class Recorder(TrainerCallback):
    """Sums the batches of a step, writes the loss curve down, and stops a run whose loss is not finite."""

    def __init__(self, steps: int, on_step: Callable[[TrainProgress], None], metrics: Metrics):
        self.steps = steps
        self.on_step = on_step
        self._metrics = metrics
        self.tokens = metrics.of("tokens")[-1]["tokens"] if metrics.of("tokens") else 0
        self._learning_rate = 0.0
        self._batches: list[tuple[Tensor, Tensor]] = []

    @property
    def curve(self) -> list[LossPoint]:
        """The points of all steps, also of those before a training went on."""
        names = [field.name for field in fields(LossPoint)]
        return [LossPoint(**{name: line[name] for name in names}) for line in self._metrics.of("loss")]

    def add(self, terms: Tensor, tokens: Tensor) -> None:
        """Loss, KL and cross-entropy of one batch as its share of the step, and its tokens."""
        self._batches.append((terms, tokens))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Notes the rate of this step: afterwards the scheduler has moved on."""
        self._learning_rate = float(kwargs["optimizer"].param_groups[0]["lr"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Adds a point to the curve and reports it."""
        sums = torch.stack([torch.cat([terms, tokens[None]]) for terms, tokens in self._batches]).double().sum(0)
        loss, kl, cross_entropy, tokens = ranks.over_ranks(sums).tolist()
        self.tokens += int(tokens)
        self._batches.clear()
        if not math.isfinite(loss):
            raise StudentError(
                f"the loss is {loss} at step {state.global_step}: lower student.train.learning_rate "
                f"({args.learning_rate}) or raise warmup_ratio"
            )
        point = LossPoint(state.global_step, loss, kl, cross_entropy, self._learning_rate)
        self._metrics.add(**asdict(point), tokens=self.tokens)
        if state.global_step >= state.max_steps:  # resumed from here, the Trainer would make one more
            control.should_save = False
        self.on_step(TrainProgress(self.steps, point, self.tokens))


class SoftLabelTrainer(Trainer):
    """The transformers Trainer with the distillation loss, a mean over all completion tokens of a step.

    So it is too where several processes share a step's batches. `draws` are those of sampled soft labels.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, weights: Loss, draws: int | None, recorder: Recorder, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.add_callback(recorder)
        self.add_callback(EpochOrder())
        self.weights = weights
        self.draws = draws
        self.recorder = recorder
        self.plain: Any = self.model  # before anything wraps it
        self.head = plain_head(self.model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """As Trainer's, whose length-grouped order changes with checkpoints and processes."""
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        dataset: Any = self.train_dataset
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGrouped(dataset.lengths, step, self.args.seed)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The process' own batches of a step, and the completion tokens of all; Trainer counts only `labels`."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        tokens = sum(len(batch["target_ids"]) for batch in batches)
        return batches, int(ranks.over_ranks(torch.tensor(tokens, device=device)))

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weighted divergence and cross-entropy of one batch, over the completion tokens of its step.

        Gradients are averaged over processes, so what is returned is as many times its share.
        """
        losses = self._losses(model, inputs, num_items_in_batch)
        terms = torch.stack([losses.total.detach(), losses.kl, losses.cross_entropy])
        filled = inputs.get("attention_mask")  # a packed batch has none, and no padding
        self.recorder.add(terms, torch.ones_like(inputs["input_ids"]).sum() if filled is None else filled.sum())
        total = losses.total * self.args.world_size
        return (total, {}) if return_outputs else total

    def _losses(self, model: Any, inputs: Any, tokens: Any) -> MixedLoss:
        labels = Labels(inputs["target_ids"], inputs["support_ids"], inputs["support_logprobs"])
        if self.head is None or model is not self.plain:  # what wraps a model may need to be called itself
            return logits_loss(*batch_logits(model, inputs), labels, self.weights, tokens, self.draws)
        with self.accelerator.autocast():  # otherwise part of the model's own forward
            return head_loss(label_hidden(model, inputs), self.head, labels, self.weights, tokens, self.draws)
