"""Measure a classifier on held-out texts, against the right labels and against its teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from distill_data.student.classifier import pad_token_id
from distill_data.student.forward import quiet_transformers
from distill_data.student.label_metrics import accuracy, calibration_error, log_loss, mean_kl
from distill_data.student.label_texts import NONE, LabelledTexts, TextCollator, TextDataset
from distill_data.student.result import ClassifierResult
from distill_data.student_config import Evaluate


def evaluate_classifier(
    model: PreTrainedModel, data: LabelledTexts, tokenizer: Any, evaluate: Evaluate, max_length: int
) -> ClassifierResult:
    """Evaluate a classifier, trained or not, on the device where it is.

    Raises:
        StudentError: no text fits max_length.
    """
    dataset = TextDataset(data, tokenizer, max_length)
    found = classify_texts(model, dataset, pad_token_id(tokenizer), evaluate.batch_size)
    teacher, right = data.probabilities[dataset.rows], data.references[dataset.rows]
    judged = right != NONE
    ours, teachers = (said.argmax(axis=1) == right for said in (found, teacher))
    figures: dict[str, Any] = {
        "both_right": int((ours & teachers).sum()),
        "only_student_right": int((ours & ~teachers).sum()),
        "only_teacher_right": int((teachers & ~ours).sum()),
    }
    if judged.any():
        for name, probabilities in (("", found[judged]), ("teacher_", teacher[judged])):
            figures[f"{name}accuracy"] = accuracy(probabilities, right[judged])
            figures[f"{name}log_loss"] = log_loss(probabilities, right[judged])
            figures[f"{name}calibration_error"] = calibration_error(probabilities, right[judged])
    return ClassifierResult(
        traces=len(dataset),
        too_long=dataset.too_long,
        judged=int(judged.sum()),
        kl=mean_kl(teacher, found),
        agreement=float((found.argmax(axis=1) == teacher.argmax(axis=1)).mean()),
        **figures,
    )


def classify_texts(model: PreTrainedModel, dataset: TextDataset, pad: int, batch_size: int) -> np.ndarray:
    """The classifier's distribution for every text: float64 [N, L]; the model is left as it was found."""
    loader: Any = DataLoader(dataset, batch_size, collate_fn=TextCollator(pad))
    training = model.training
    model.eval()
    with torch.inference_mode(), quiet_transformers():
        logits = [
            model(**{name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}).logits.double()
            for batch in loader
        ]
    model.train(training)
    return torch.cat(logits).softmax(1).cpu().numpy()
