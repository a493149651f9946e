"""A student with random weights, built from an architecture that the config describes."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from distill_data.errors import ConfigError
from distill_data.student.forward import quiet_transformers

# Fields that transformers takes as keywords and stores under another name.
_LEGACY_FIELDS = {"rope_theta", "rope_scaling"}


def random_student(fields: dict[str, Any], tokenizer: Any, seed: int) -> PreTrainedModel:
    """A model of these fields with the tokenizer's vocabulary and special tokens; weights come from the seed.

    Raises:
        ConfigError: they name no causal language model, an unknown field, or do not fit together.
    """
    return _random(AutoModelForCausalLM, fields, tokenizer, seed, {})


def random_classifier(fields: dict[str, Any], tokenizer: Any, seed: int, labels: dict[str, Any]) -> PreTrainedModel:
    """The same with a head for sequence classification; `labels` are the config fields that name them.

    Raises:
        ConfigError: as for `random_student`.
    """
    return _random(AutoModelForSequenceClassification, fields, tokenizer, seed, labels)


_KINDS: dict[Any, tuple[Any, str, str]] = {
    AutoModelForCausalLM: (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "causal language model", "llama or qwen3"),
    AutoModelForSequenceClassification: (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "sequence classification model",
        "bert or qwen3",
    ),
}


def _random(kind: Any, fields: dict[str, Any], tokenizer: Any, seed: int, more: dict[str, Any]) -> PreTrainedModel:
    _check_fields(kind, fields, len(tokenizer))
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            settings: dict[str, Any] = {"vocab_size": len(tokenizer)} | special | more | fields
            config = AutoConfig.for_model(**settings)
            return kind.from_config(config, dtype=torch.float32)
    except Exception as error:
        raise ConfigError(
            f"student.model.from_config makes no {fields['model_type']} model ({_one_line(error)}): "
            "change the field that it names"
        ) from error


def _check_fields(kind: Any, fields: dict[str, Any], tokenizer_length: int) -> None:
    """Refuse what transformers would take in silence: it stores unknown fields and never reads them."""
    model_type, (known_types, name, examples) = fields["model_type"], _KINDS[kind]
    if model_type not in known_types:
        raise ConfigError(
            f"student.model.from_config.model_type {model_type!r} is no {name} of transformers"
            f"{_nearest(model_type, known_types)}: give one such as {examples}"
        )
    config_class = CONFIG_MAPPING[model_type]
    known = {*config_class().to_dict(), *config_class.attribute_map, *_LEGACY_FIELDS}
    if unknown := sorted(fields.keys() - known):
        raise ConfigError(
            f"student.model.from_config.{unknown[0]} is no field of {model_type}"
            f"{_nearest(unknown[0], known)}: correct or remove it"
        )
    size = fields.get("vocab_size", tokenizer_length)
    if isinstance(size, int) and size < tokenizer_length:
        raise ConfigError(
            f"student.model.from_config.vocab_size {size} is smaller than the teacher's tokenizer "
            f"({tokenizer_length}): leave it out or set at least {tokenizer_length}"
        )


def _nearest(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
