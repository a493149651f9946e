"""The transformers Trainer's arguments for a config's `train` section."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments

from distill_data.errors import StudentError
from distill_data.student_config import Train


def training_arguments(train: Train, output: Path) -> TrainingArguments:
    """Arguments for training in one process on one device, with checkpoints in `output`.

    Raises:
        StudentError: the Trainer refuses the settings.
    """
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
