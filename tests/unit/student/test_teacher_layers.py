from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from distill_data.errors import ConfigError
from distill_data.models import resolve_model
from distill_data.student.model import load_student
from distill_data.student.teacher_layers import take_layers, teacher_depth
from distill_data.student_config import Layers, NewStudent, Student

SIZES = {
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2},
    "qwen3": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True,
    },
    "gemma3_text": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16,
    },
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 2},
}  # fmt: skip


def made(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=64, **SIZES[kind])).eval()


@pytest.mark.parametrize("kind", SIZES)
def test_all_layers_are_the_teacher(kind: str) -> None:
    teacher, ids = made(kind), torch.arange(10)[None]
    with torch.inference_mode():
        same = take_layers(teacher, [0, 1, 2, 3]).eval()(ids).logits
        assert torch.equal(same, teacher(ids).logits)


@pytest.mark.parametrize("kind", SIZES)
def test_a_student_of_layers_is_the_teacher_without_the_others(kind: str) -> None:
    teacher, ids = made(kind), torch.arange(10)[None]
    student = take_layers(teacher, [1, 3]).eval()
    base: Any = teacher.base_model
    blocks = base.h if kind == "gpt2" else base.layers
    for gone in (2, 0):
        del blocks[gone]
    config = teacher.config.get_text_config()
    config.num_hidden_layers = 2
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer] for layer in (1, 3)]
    with torch.inference_mode():
        expected = teacher(ids, use_cache=False).logits
        assert torch.equal(student(ids, use_cache=False).logits, expected)
        assert torch.allclose(student(ids).logits, expected, atol=1e-5)  # with a cache, which goes by layer numbers


def test_a_config_names_layers_of_its_teacher(tiny_model: Path, tokenizer: Any) -> None:
    depth = AutoConfig.from_pretrained(tiny_model).num_hidden_layers
    source = resolve_model(str(tiny_model))
    student = load_student(Student(model=NewStudent(from_teacher=Layers(layers=[0]))), tokenizer, source)
    assert student.config.num_hidden_layers == 1
    assert teacher_depth(source, [0]) == depth
    with pytest.raises(ConfigError, match=f"names layer 99 and the teacher has {depth}, numbered from 0"):
        load_student(Student(model=NewStudent(from_teacher=Layers(layers=[0, 99]))), tokenizer, source)
