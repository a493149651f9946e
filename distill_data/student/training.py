"""Train a student on soft labels with the transformers Trainer: our data and loss, its loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments

from distill_data.errors import StudentError
from distill_data.student.collate import PackedCollator, SoftLabelCollator
from distill_data.student.dataset import SoftLabelDataset
from distill_data.student.forward import quiet_transformers
from distill_data.student.model import check_packing, load_student
from distill_data.student.trainer import LossPoint, Recorder, SoftLabelTrainer, TrainProgress
from distill_data.student.vocabulary import check_vocabulary, vocabulary_size
from distill_data.student_config import Student, Train


@dataclass(frozen=True)
class TrainJob:
    """What to train on what: `labels` is a table of SOFT_LABELS_SCHEMA, `tokenizer` the teacher's own.

    `draws` are those of sampled soft labels.
    """

    student: Student
    labels: pa.Table
    tokenizer: Any
    output: Path
    draws: int | None = None


@dataclass(frozen=True)
class TrainResult:
    """A trained student, saved in `folder`; training.json holds the same.

    `tokens` counts prompt and completion tokens seen, padding left out; `traces` are those trained on, and
    `too_long` those left out because of max_length. `seconds` is the training loop alone.
    """

    folder: Path
    steps: int
    traces: int
    too_long: int
    tokens: int
    seconds: float
    tokens_per_second: float
    parameters: int
    device: str
    loss_curve: list[LossPoint]


def train_student(job: TrainJob, on_step: Callable[[TrainProgress], None]) -> TrainResult:
    """Train a student and save model, tokenizer and training.json into `job.output`; silent, on a GPU if any.

    `on_step` is called after every optimizer step. The same job gives the same weights on a CPU.

    Raises:
        ConfigError, ModelError: the student's model cannot be made or loaded.
        StudentError: no trace to train on, a vocabulary or context that does not fit, a loss that is not
            finite, or no memory left.
    """
    train = job.student.train
    dataset = SoftLabelDataset(job.labels, train.max_length, train.loss.unlabelled)
    model = load_student(job.student, job.tokenizer)
    check_vocabulary(vocabulary_size(model), len(job.tokenizer), dataset.max_token_id)
    _check_context(model, dataset.longest)
    if packed := train.batching == "packed":
        check_packing(model)
    use_cache = getattr(model.config, "use_cache", None)
    recorder = Recorder(train.steps, on_step)
    with quiet_transformers():
        trainer = SoftLabelTrainer(
            model=model,
            args=_arguments(train, job.output),
            train_dataset=dataset,
            data_collator=PackedCollator() if packed else SoftLabelCollator(job.tokenizer.pad_token_id or 0),
            weights=train.loss,
            draws=job.draws,
            recorder=recorder,
        )
        trainer.remove_callback(PrinterCallback)
        started = time.perf_counter()
        _run(trainer)
        seconds = time.perf_counter() - started
        if use_cache is not None:
            model.config.use_cache = use_cache  # the Trainer switched it off, and a saved student generates
        model.save_pretrained(job.output)
        job.tokenizer.save_pretrained(job.output)
    result = TrainResult(
        folder=job.output,
        steps=len(recorder.curve),
        traces=len(dataset),
        too_long=dataset.too_long,
        tokens=recorder.tokens,
        seconds=seconds,
        tokens_per_second=recorder.tokens / seconds,
        parameters=model.num_parameters(),
        device=str(trainer.args.device),
        loss_curve=recorder.curve,
    )
    _write_report(result, job.student)
    return result


def _arguments(train: Train, output: Path) -> TrainingArguments:
    try:
        arguments = TrainingArguments(
            output_dir=str(output),
            max_steps=train.steps,
            per_device_train_batch_size=train.batch_size,
            gradient_accumulation_steps=train.gradient_accumulation,
            train_sampling_strategy="group_by_length" if train.batching == "length_grouped" else "random",
            learning_rate=train.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=train.warmup_ratio,  # below 1 it is a share of the steps
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            bf16=train.bf16,
            seed=train.seed,
            use_cpu=not torch.accelerator.is_available(),  # or the Trainer refuses bf16 on a CPU
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
    except ValueError as error:
        message = " ".join(str(error).split())
        raise StudentError(f"the Trainer refuses these settings ({message}): change student.train") from error
    # One process trains on one device: with several GPUs the Trainer would copy the model to all, every step.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _run(trainer: Trainer) -> None:
    try:
        trainer.train()
    except torch.OutOfMemoryError as error:
        raise StudentError(
            f"no memory left on {trainer.args.device} with batch_size "
            f"{trainer.args.per_device_train_batch_size}: lower student.train.batch_size and raise "
            "student.train.gradient_accumulation"
        ) from error


def _check_context(model: PreTrainedModel, longest: int) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise StudentError(
            f"the longest trace has {longest} tokens and the student's context is {context}: set "
            f"student.train.max_length: {context} (longer traces are left out and counted), or give the "
            "student a longer context"
        )


def _write_report(result: TrainResult, student: Student) -> None:
    report = asdict(result) | {"student": student.model_dump(mode="json")}
    del report["folder"]
    (result.folder / "training.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
