"""Low-rank adapters (Hu et al., 2022, "LoRA"), by peft: put into a student, trained, merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from distill_data.errors import ConfigError
from distill_data.student_config import Lora

ADAPTER_FOLDER = "adapter"


def add_adapters(model: PreTrainedModel, lora: Lora, seed: int) -> Any:
    """Put adapters into a model, in place, and freeze the rest; what is returned saves and merges them.

    Raises:
        ConfigError: no layer of the model has one of the names.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return get_peft_model(model, settings)
    except ValueError as error:
        raise ConfigError(
            f"student.train.lora cannot be put into the student ({' '.join(str(error).split())[:200]}): correct "
            "target_modules"
        ) from error


def save_adapter(adapted: Any, output: Path) -> PreTrainedModel:
    """Save the adapters by themselves in `adapter/`, and return the model that they are merged into."""
    adapted.save_pretrained(str(output / ADAPTER_FOLDER))
    return adapted.merge_and_unload()
