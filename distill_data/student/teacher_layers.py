"""A student of some of the teacher's own layers, as DistilBERT (Sanh et al., 2019) and MiniPLM begin theirs."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from distill_data.errors import ConfigError
from distill_data.models import ModelSource, local_model_folder
from distill_data.student.forward import quiet_transformers


def take_layers(teacher: PreTrainedModel, layers: list[int]) -> PreTrainedModel:
    """A model of the teacher's architecture with these layers of it, renumbered; everything else comes along.

    Args:
        teacher: any causal language model of transformers that numbers its layers in the names of its weights.
        layers: ascending numbers, from 0.

    Raises:
        ConfigError: the teacher has no such layer, or its layers cannot be told apart.
    """
    config = teacher.config.get_text_config()
    depth = _check_depth(config, layers)
    smaller = AutoModelForCausalLM.from_config(_with_layers(teacher.config, layers, depth), dtype=torch.float32)
    weights = _renumbered(teacher.state_dict(), layers)
    if set(weights) != set(smaller.state_dict()):
        raise ConfigError(
            f"the layers of a {config.model_type} cannot be told apart by the names of its weights: give "
            "student.model a folder or from_config: instead of from_teacher:"
        )
    smaller.load_state_dict(weights)
    smaller.generation_config = copy.deepcopy(teacher.generation_config)
    return smaller


def teacher_depth(teacher: ModelSource, layers: list[int], *, trust_remote_code: bool = False) -> int:
    """How many layers a teacher has; reads its config only.

    Raises:
        ConfigError: it does not have all of these.
        ModelError: it is not there.
    """
    folder = local_model_folder(teacher, trust_remote_code=trust_remote_code)
    with quiet_transformers():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return _check_depth(config.get_text_config(), layers)


def _check_depth(config: Any, layers: list[int]) -> int:
    depth = config.num_hidden_layers
    if layers[-1] >= depth:
        raise ConfigError(
            f"student.model.from_teacher.layers names layer {layers[-1]} and the teacher has {depth}, numbered from 0: "
            "leave it out"
        )
    return depth


def _with_layers(config: Any, layers: list[int], depth: int) -> Any:
    """The config of the smaller model; what it lists per layer is listed for these layers."""
    smaller = copy.deepcopy(config)
    text = smaller.get_text_config()
    for name, value in text.to_dict().items():
        if isinstance(value, list) and len(value) == depth:
            setattr(text, name, [value[layer] for layer in layers])
    text.num_hidden_layers = len(layers)
    return smaller


_LAYER = re.compile(r"^(.*?\.(?:layers|h|blocks|block)\.)(\d+)(\..*)$")


def _renumbered(weights: dict[str, Any], layers: list[int]) -> dict[str, Any]:
    """The weights outside of layers, and those of the layers that are taken under their new numbers."""
    new = {old: number for number, old in enumerate(layers)}
    kept = {}
    for name, value in weights.items():
        found = _LAYER.match(name)
        if found is None:
            kept[name] = value
        elif (old := int(found[2])) in new:
            kept[f"{found[1]}{new[old]}{found[3]}"] = value
    return kept
