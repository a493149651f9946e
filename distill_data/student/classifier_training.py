"""Train a classifier on a teacher's distributions over labels, with the transformers Trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from transformers import PrinterCallback

from distill_data.student import ranks
from distill_data.student.arguments import training_arguments
from distill_data.student.checkpoints import last_checkpoint
from distill_data.student.classifier import load_classifier, pad_token_id
from distill_data.student.forward import quiet_transformers
from distill_data.student.label_texts import NONE, LabelledTexts, TextCollator, TextDataset
from distill_data.student.losses import MixedLoss
from distill_data.student.metrics import Metrics
from distill_data.student.trainer import Recorder, SoftLabelTrainer, TrainProgress
from distill_data.student.training import TrainResult, check_context, finished, run_trainer
from distill_data.student_config import Loss, Student


@dataclass(frozen=True)
class ClassifierJob:
    """What to train on what, and in which tokens."""

    student: Student
    data: LabelledTexts
    tokenizer: Any
    output: Path


class ClassifierTrainer(SoftLabelTrainer):
    """The same Trainer; a batch's logits are over labels, and its loss a mean over the texts of a step."""

    def _losses(self, model: Any, inputs: Any, texts: Any) -> MixedLoss:
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        return label_loss(logits.float(), inputs["probabilities"], inputs["target_ids"], self.weights, texts)


def label_loss(logits: Tensor, probabilities: Tensor, targets: Tensor, weights: Loss, texts: Any) -> MixedLoss:
    """The weighted sum of KL(teacher || student) and the cross-entropy on hard labels, over a batch, by `texts`.

    With a temperature T both sides are flattened by it and the KL is multiplied by its square (Hinton et al., 2015).

    Args:
        logits: float [B, L], the student's.
        probabilities: float [B, L], the teacher's.
        targets: int [B], hard labels, NONE where there is none.
        weights: of the two terms, and T.
        texts: how many the step has.
    """
    temperature = weights.temperature
    flat = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log().div(temperature).softmax(1)
    divergences = kl_div(logits.div(temperature).log_softmax(1), flat, reduction="sum")
    kl = temperature**2 * divergences / texts
    hard = cross_entropy(logits, targets, ignore_index=NONE, reduction="sum") / texts
    return MixedLoss(weights.kl * kl + weights.cross_entropy * hard, kl.detach(), hard.detach())


def train_classifier(job: ClassifierJob, on_step: Callable[[TrainProgress], None]) -> TrainResult:
    """Train a classifier and save it with its tokenizer, its label names and training.json into `job.output`.

    `tokens` of the result are those of texts, padding left out. The same job gives the same weights on a CPU, also
    where it was killed and goes on from a checkpoint.

    Raises:
        ConfigError, ModelError: the student's model cannot be made or loaded.
        StudentError: no text to train on, no reference where these are learnt, a vocabulary or context that does not
            fit, a loss that is not finite, or no memory left.
    """
    train = job.student.train
    what = {"references": train.learns == "reference", "hard_only": train.loss.kl == 0}
    dataset = TextDataset(job.data, job.tokenizer, train.max_length, **what)
    model = load_classifier(job.student, job.tokenizer, job.data.labels)
    check_context(model, int(dataset.lengths.max()))
    job.output.mkdir(parents=True, exist_ok=True)
    checkpoint, done = ranks.from_main(lambda: last_checkpoint(job.output))
    metrics = Metrics(job.output, done, train.tensorboard, writes=ranks.is_main())
    recorder = Recorder(train.steps, on_step, metrics)
    with quiet_transformers():
        trainer = ClassifierTrainer(
            model=model,
            args=training_arguments(train, job.output),
            train_dataset=dataset,
            data_collator=TextCollator(pad_token_id(job.tokenizer)),
            weights=train.loss,
            draws=None,
            recorder=recorder,
        )
        trainer.remove_callback(PrinterCallback)
        run = run_trainer(trainer, checkpoint, recorder)
        if ranks.is_main():
            model.save_pretrained(job.output)
            job.tokenizer.save_pretrained(job.output)
    metrics.close()
    return finished(job.output, job.student, dataset, recorder, run, model.num_parameters(), None)
