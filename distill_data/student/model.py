"""Load a student: from an architecture or from a model, refused unless it speaks the teacher's vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from distill_data.errors import ModelError
from distill_data.models import ModelSource, local_model_folder, resolve_model
from distill_data.student.architecture import random_student
from distill_data.student.forward import quiet_transformers
from distill_data.student.special_tokens import eos_ids, take_special_tokens
from distill_data.student.teacher_layers import take_layers
from distill_data.student.vocabulary import SavedVocabulary, check_own_tokenizer
from distill_data.student.weights import load_weights
from distill_data.student_config import Student


def load_student(student: Student, tokenizer: Any, teacher: ModelSource | None = None) -> PreTrainedModel:
    """The untrained student, in float32 on the CPU; `from_config` weights come from `student.train.seed`.

    Weights stay float32 also where the checkpoint is bfloat16: small updates would be lost in it. Special tokens are
    those of `tokenizer`, which the student is saved with. `teacher` is whose layers `from_teacher` takes.

    Raises:
        ConfigError: `from_config` names no causal language model, an unknown field or misfits; `from_teacher` names a
            layer that is not there.
        ModelError: the model is not there, not whole, or sees the tokens that it should predict.
        StudentError: the model was trained with another vocabulary than the teacher's.
    """
    model = _load(student, tokenizer, teacher)
    _check_causal(model)
    take_special_tokens(model, tokenizer)
    return model


def _load(student: Student, tokenizer: Any, teacher: ModelSource | None) -> PreTrainedModel:
    trust = student.trust_remote_code
    if isinstance(student.model, str):
        folder = local_model_folder(resolve_model(student.model, student.revision), trust_remote_code=trust)
        check_own_tokenizer(student, folder, tokenizer)
        return load_saved_student(folder, trust_remote_code=trust)
    if student.model.from_config is not None:
        return random_student(student.model.from_config, tokenizer, student.train.seed)
    if student.model.from_teacher is None or teacher is None:
        raise ModelError("the student is layers of a teacher that is not there: give student.model a folder")
    folder = local_model_folder(teacher, trust_remote_code=trust)
    return take_layers(load_saved_student(folder, trust_remote_code=trust), student.model.from_teacher.layers)


def load_saved_student(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model of a folder (save_pretrained format, safetensors only), in float32 on the CPU.

    Raises:
        ModelError: the folder does not hold a whole causal language model.
    """
    return load_weights(AutoModelForCausalLM, folder, trust_remote_code=trust_remote_code)


def saved_vocabulary(student: Student, tokenizer: Any) -> SavedVocabulary:
    """What a hub id's or folder's model says of its tokens, in its config and its own tokenizer; loads no weights.

    Raises:
        ModelError: the model is not there, or is no causal language model that transformers knows.
        StudentError: it was trained with another vocabulary than the teacher's.
    """
    reference = str(student.model)
    source = resolve_model(reference, student.revision)
    folder = local_model_folder(source, trust_remote_code=student.trust_remote_code)
    renamed = check_own_tokenizer(student, folder, tokenizer)
    try:
        with quiet_transformers():
            config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=student.trust_remote_code)
        size = int(config.get_text_config().vocab_size)
    except Exception as error:
        raise ModelError(
            f"student {reference!r} has no config that loads ({_one_line(error)}): "
            "give a folder that save_pretrained wrote"
        ) from error
    own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not own_code:
        raise ModelError(
            f"student {reference!r} is a {config.model_type}, no causal language model: take one such as llama or qwen3"
        )
    return SavedVocabulary(size, renamed, eos_ids(config.get_text_config()))


@torch.inference_mode()
def _check_causal(model: PreTrainedModel) -> None:
    """Refuse a model whose logits depend on later tokens: transformers lets BERT and its kin pass for causal."""
    training = model.training
    model.eval()
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=model.device)
    with quiet_transformers():
        one, other = model(input_ids=ids, use_cache=False).logits[:, :-1]
    model.train(training)
    if (one - other).abs().max() > 1e-4 * one.abs().max():
        raise ModelError(
            f"the student's {type(model).__name__} sees the tokens that it should predict: take a causal model "
            "such as llama or qwen3, or set is_decoder: true where the architecture has it"
        )


@torch.inference_mode()
def check_packing(model: PreTrainedModel) -> None:
    """Refuse a model whose logits of a trace depend on a trace that is packed before it.

    transformers' own models read from position_ids where a trace begins; recurrent ones and models with positions of
    their own do not.

    Raises:
        ModelError: it does.
    """
    training = model.training
    model.eval()
    ids = torch.tensor([[1, 2, 3, 4, 3, 2, 1]], device=model.device)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3]], device=model.device)
    try:
        with quiet_transformers():
            packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, 3:]
            alone = model(input_ids=ids[:, 3:], use_cache=False).logits
        crosses = float((packed - alone).abs().max()) > 1e-5 * float(alone.abs().max())
    except TypeError:  # it takes no position_ids
        crosses = True
    model.train(training)
    if crosses:
        raise ModelError(
            f"packed traces see each other in the student's {type(model).__name__}: set student.train.batching to "
            "padded or length_grouped"
        )


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
