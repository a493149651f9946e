"""Train a student on soft labels with the transformers Trainer: our data and loss, its loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer

from distill_data.errors import StudentError
from distill_data.models import ModelSource
from distill_data.parquet import place
from distill_data.student import ranks
from distill_data.student.arguments import training_arguments
from distill_data.student.checkpoints import last_checkpoint, remove_checkpoints
from distill_data.student.collate import PackedCollator, SoftLabelCollator
from distill_data.student.dataset import SoftLabelDataset
from distill_data.student.evaluation import evaluate_student
from distill_data.student.forward import quiet_transformers
from distill_data.student.held_out import HeldOutLooks
from distill_data.student.label_kind import TEACHERS_OWN, HeldOut, LabelKind
from distill_data.student.looks import Looks
from distill_data.student.lora import add_adapters, save_adapter
from distill_data.student.metrics import Metrics
from distill_data.student.model import check_packing, load_student
from distill_data.student.result import EvaluationResult
from distill_data.student.trainer import LossPoint, Recorder, SoftLabelTrainer, TrainProgress
from distill_data.student.vocabulary import check_vocabulary, vocabulary_size
from distill_data.student_config import Student


@dataclass(frozen=True)
class TrainJob:
    """What to train on what: `labels` is a table of SOFT_LABELS_SCHEMA in the tokens of `tokenizer`.

    `kind` is how they are to be read; `held_out` is what early stopping and looks are at, `references` what looks are
    at besides, and `teacher` whose layers a student of layers takes.
    """

    student: Student
    labels: pa.Table
    tokenizer: Any
    output: Path
    kind: LabelKind = TEACHERS_OWN
    held_out: HeldOut | None = None
    references: HeldOut | None = None
    teacher: ModelSource | None = None


@dataclass(frozen=True)
class TrainResult:
    """A trained student, saved in `folder`; training.json holds the same.

    `tokens` counts prompt and completion tokens seen, padding left out; `traces` are those trained on, and
    `too_long` those left out because of max_length; a classifier that learns nothing but references leaves out texts
    `without_reference` too. `seconds` is the training loop alone, and `tokens_per_second` what
    it did in them: of a training that went on after a kill, since then. `best_step` is where early stopping found the
    weights.
    """

    folder: Path
    steps: int
    traces: int
    too_long: int
    without_reference: int
    tokens: int
    seconds: float
    tokens_per_second: float
    parameters: int
    device: str
    best_step: int | None
    loss_curve: list[LossPoint]


def train_student(job: TrainJob, on_step: Callable[[TrainProgress], None]) -> TrainResult:
    """Train a student and save model, tokenizer and training.json into `job.output`; silent, on a GPU if any.

    `on_step` is called after every optimizer step. The same job gives the same weights on a CPU, also where it was
    killed and goes on from a checkpoint in `job.output`. Processes that `accelerate launch` started all call it with
    the same job: they share the batches, and the main one writes.

    Raises:
        ConfigError, ModelError: the student's model cannot be made or loaded.
        StudentError: no trace to train on, a vocabulary or context that does not fit, a loss that is not
            finite, or no memory left.
    """
    train = job.student.train
    dataset = SoftLabelDataset(job.labels, train.max_length, job.kind.unlabelled)
    model = load_student(job.student, job.tokenizer, job.teacher)
    check_vocabulary(vocabulary_size(model), len(job.tokenizer), dataset.max_token_id)
    check_context(model, dataset.longest)
    if train.batching == "packed":
        check_packing(model)
    parameters = model.num_parameters()
    use_cache = getattr(model.config, "use_cache", None)
    adapted = None if train.lora is None else add_adapters(model, train.lora, train.seed)
    job.output.mkdir(parents=True, exist_ok=True)
    checkpoint, done = ranks.from_main(lambda: last_checkpoint(job.output))
    metrics = Metrics(job.output, done, train.tensorboard, writes=ranks.is_main())
    recorder = Recorder(train.steps, on_step, metrics)
    with quiet_transformers():
        trainer = _trainer(job, dataset, model, recorder)
        looks = _add_looks(trainer, job, metrics)
        run = run_trainer(trainer, checkpoint, recorder)
        best = looks.restore_best(model) if looks is not None else None
        if use_cache is not None:
            model.config.use_cache = use_cache  # the Trainer switched it off, and a saved student generates
        _save(trainer, model, adapted, job)
    metrics.close()
    return finished(job.output, job.student, dataset, recorder, run, parameters, best)


def _save(trainer: SoftLabelTrainer, model: PreTrainedModel, adapted: Any, job: TrainJob) -> None:
    """Model and tokenizer, by the main process; weights that are sharded over processes are gathered by all."""
    gathered: dict[str, Any] = {}
    if trainer.is_fsdp_enabled:
        gathered = {"state_dict": trainer.accelerator.get_state_dict(trainer.model)}
    if not ranks.is_main():
        return
    if (lora := job.student.train.lora) is not None and gathered:  # adapters are not merged into shards
        model = load_student(job.student, job.tokenizer, job.teacher)
        adapted = add_adapters(model, lora, job.student.train.seed)
        model.load_state_dict(gathered.pop("state_dict"))
    (model if adapted is None else save_adapter(adapted, job.output)).save_pretrained(job.output, **gathered)
    job.tokenizer.save_pretrained(job.output)


def _trainer(job: TrainJob, dataset: SoftLabelDataset, model: PreTrainedModel, recorder: Recorder) -> SoftLabelTrainer:
    train = job.student.train
    trainer = SoftLabelTrainer(
        model=model,
        args=training_arguments(train, job.output),
        train_dataset=dataset,
        data_collator=PackedCollator()
        if train.batching == "packed"
        else SoftLabelCollator(job.tokenizer.pad_token_id or 0),
        weights=train.loss,
        draws=job.kind.draws,
        recorder=recorder,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _add_looks(trainer: SoftLabelTrainer, job: TrainJob, metrics: Metrics) -> HeldOutLooks | None:
    """Let the training be looked at on the way as the config says; returned is what may end it early."""
    train = job.student.train
    if trainer.is_fsdp_enabled and (train.early_stopping is not None or train.look_every is not None):
        raise StudentError(
            "weights that are sharded over processes are not looked at on the way: leave student.train.look_every "
            "and early_stopping out, or train without FSDP"
        )
    if train.look_every is not None:
        trainer.add_callback(Looks(train.look_every, partial(_measured, job), metrics))
    if train.early_stopping is None:
        return None
    if (held_out := job.held_out) is None or not len(held_out.labels):
        raise StudentError(
            "student.train.early_stopping looks at held-out traces and there are none: set validation.fraction above 0 "
            "and build again, or leave early_stopping out"
        )
    looks = HeldOutLooks(train.early_stopping, partial(_measure, job, held_out), metrics, job.output)
    trainer.add_callback(looks)
    return looks


def _measure(job: TrainJob, held_out: HeldOut, model: Any) -> EvaluationResult:
    return evaluate_student(model, held_out.labels, job.student.evaluate, job.student.train.max_length, held_out.kind)


def _measured(job: TrainJob, model: Any) -> dict[str, float]:
    """What a look finds, by what it is measured on."""
    found = {}
    for name, held_out in (("teacher", job.held_out), ("reference", job.references)):
        if held_out is not None:
            result = _measure(job, held_out, model)
            figures = {"cross_entropy": result.cross_entropy, "kl": result.kl, "uld": result.uld}
            found |= {f"{name}_{figure}": value for figure, value in figures.items() if value is not None}
    return found


@dataclass(frozen=True)
class Run:
    """What the training loop of one process took, and on what."""

    seconds: float
    tokens: int
    device: str


def run_trainer(trainer: Trainer, checkpoint: Path | None, recorder: Recorder) -> Run:
    """Train, from a checkpoint where there is one.

    Raises:
        StudentError: no memory is left.
    """
    started, tokens = time.perf_counter(), recorder.tokens
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except torch.OutOfMemoryError as error:
        raise StudentError(
            f"no memory left on {trainer.args.device} with batch_size "
            f"{trainer.args.per_device_train_batch_size}: lower student.train.batch_size and raise "
            "student.train.gradient_accumulation"
        ) from error
    return Run(time.perf_counter() - started, recorder.tokens - tokens, str(trainer.args.device))


def finished(
    folder: Path, student: Student, dataset: Any, recorder: Recorder, run: Run, parameters: int, best_step: int | None
) -> TrainResult:
    """What came of a training; written into its folder by the main process, which then needs no checkpoint."""
    result = TrainResult(
        folder=folder,
        steps=recorder.curve[-1].step,
        traces=len(dataset),
        too_long=dataset.too_long,
        without_reference=getattr(dataset, "without_reference", 0),  # a trace always has what is learnt of it
        tokens=recorder.tokens,
        seconds=run.seconds,
        tokens_per_second=run.tokens / run.seconds,
        parameters=parameters,
        device=run.device,
        best_step=best_step,
        loss_curve=recorder.curve,
    )
    if ranks.is_main():
        _write_report(result, student)
        remove_checkpoints(folder)
    return result


def check_context(model: PreTrainedModel, longest: int) -> None:
    """Raises StudentError where the longest trace does not fit the model's context."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise StudentError(
            f"the longest trace has {longest} tokens and the student's context is {context}: set "
            f"student.train.max_length: {context} (longer traces are left out and counted), or give the "
            "student a longer context"
        )


def _write_report(result: TrainResult, student: Student) -> None:
    """Write training.json, which says that the training is done, into the student's folder, whole or not at all."""
    report = asdict(result) | {"student": student.model_dump(mode="json")}
    del report["folder"]
    place((json.dumps(report, indent=2) + "\n").encode(), result.folder / "training.json")
