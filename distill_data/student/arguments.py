"""The transformers Trainer's arguments for a config's `train` section."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments

from distill_data.errors import StudentError
from distill_data.student.ranks import world_size
from distill_data.student_config import Train


def training_arguments(train: Train, output: Path) -> TrainingArguments:
    """Arguments for one process on one device, with checkpoints in `output`.

    Processes that train together share a step's batches: how many there are changes nothing but the speed.

    Raises:
        StudentError: the Trainer refuses the settings, or a step's traces cannot be shared evenly.
    """
    batch_size, accumulation = shared_step(train, world_size())
    try:
        arguments = TrainingArguments(
            output_dir=str(output),
            max_steps=train.steps,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            train_sampling_strategy="group_by_length" if train.batching == "length_grouped" else "random",
            learning_rate=train.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=train.warmup_ratio,  # below 1 it is a share of the steps
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            bf16=train.bf16,
            gradient_checkpointing=train.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            seed=train.seed,
            use_cpu=not torch.accelerator.is_available(),  # or the Trainer refuses bf16 on a CPU
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            logging_strategy="no",
            save_strategy="steps",
            save_steps=train.checkpoint_every,
            save_total_limit=1,
            report_to=[],
            disable_tqdm=True,
        )
    except ValueError as error:
        message = " ".join(str(error).split())
        raise StudentError(f"the Trainer refuses these settings ({message}): change student.train") from error
    # One process trains on one device: with several GPUs the Trainer would copy the model to all, every step.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def shared_step(train: Train, processes: int) -> tuple[int, int]:
    """Traces per batch and batches per step of each of the processes that share a step.

    Raises:
        StudentError: neither number can be divided by them.
    """
    if train.gradient_accumulation % processes == 0:
        return train.batch_size, train.gradient_accumulation // processes
    if train.batch_size % processes == 0:
        return train.batch_size // processes, train.gradient_accumulation
    raise StudentError(
        f"{processes} processes cannot share a step of {train.gradient_accumulation} batches of {train.batch_size} "
        f"traces: make student.train.gradient_accumulation or batch_size a multiple of {processes}"
    )
