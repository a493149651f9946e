"""A student that classifies: any architecture with a head for sequence classification, in the labels' order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from distill_data.errors import ModelError, StudentError
from distill_data.models import local_model_folder, resolve_model, tokenizer_fingerprint
from distill_data.student.architecture import random_classifier
from distill_data.student.forward import quiet_transformers
from distill_data.student.vocabulary import TOKENIZER_FILES, check_vocabulary, vocabulary_size
from distill_data.student.weights import load_weights
from distill_data.student_config import NewStudent, Student


def load_classifier(student: Student, tokenizer: Any, labels: list[str]) -> PreTrainedModel:
    """The untrained classifier, in float32 on the CPU; what is not in the model's files comes from the seed.

    Raises:
        ConfigError: `from_config` names no architecture that classifies, an unknown field, or does not fit together.
        ModelError: the model is not there or lacks more than its head.
        StudentError: it has other tokens than `tokenizer`.
    """
    if isinstance(student.model, NewStudent):
        model = random_classifier(student.model.from_config or {}, tokenizer, student.train.seed, label_fields(labels))
    else:
        source = resolve_model(student.model, student.revision)
        folder = local_model_folder(source, trust_remote_code=student.trust_remote_code)
        _check_tokens(student, folder, tokenizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(student.train.seed)
            model = _load(folder, student.trust_remote_code, labels)
    check_vocabulary(vocabulary_size(model), len(tokenizer), -1)
    model.config.pad_token_id = pad_token_id(tokenizer)  # decoders look for the last token before it
    return model


def load_saved_classifier(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A trained classifier, in float32 on the CPU.

    Raises:
        ModelError: the folder does not hold a whole one.
    """
    return _load(folder, trust_remote_code, None)


def pad_token_id(tokenizer: Any) -> int:
    """What batches are padded with.

    Raises:
        ModelError: the tokenizer has neither a padding token nor EOS.
    """
    found = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    if found is None:
        raise ModelError("the student's tokenizer has no padding token and no EOS: set pad_token in its config")
    return found


def _load(folder: Path, trust_remote_code: bool, labels: list[str] | None) -> PreTrainedModel:
    """With `labels` a new head for them may be made, and nothing else may be missing."""
    if labels is None:
        return load_weights(AutoModelForSequenceClassification, folder, trust_remote_code=trust_remote_code)
    return load_weights(
        AutoModelForSequenceClassification,
        folder,
        trust_remote_code=trust_remote_code,
        may_lack=_is_of_a_head,
        **label_fields(labels),
    )


def _is_of_a_head(model: PreTrainedModel, name: str) -> bool:
    return not name.startswith(f"{model.base_model_prefix}.") or ".pooler." in name


def label_fields(labels: list[str]) -> dict[str, Any]:
    """What a transformers config says of labels."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def _check_tokens(student: Student, folder: Path, tokenizer: Any) -> None:
    """Refuse a model that was trained on other tokens."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return
    with quiet_transformers():
        own = AutoTokenizer.from_pretrained(folder, trust_remote_code=student.trust_remote_code)
    if tokenizer_fingerprint(own) != tokenizer_fingerprint(tokenizer):
        raise StudentError(
            f"student.model {student.model!r} has a tokenizer of its own and student.tokenizer is "
            f"{student.tokenizer!r}: set student.tokenizer: {student.model}"
        )
