"""Measure a student against its teacher on held-out traces, position by position."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from distill_data.errors import StudentError
from distill_data.student.chunked_loss import ROWS
from distill_data.student.collate import SoftLabelCollator
from distill_data.student.dataset import SoftLabelDataset
from distill_data.student.forward import logit_chunks, plain_head, quiet_transformers
from distill_data.student.label_kind import TEACHERS_OWN, LabelKind
from distill_data.student.losses import (
    cross_entropy,
    drawn_kl,
    tail_bucket_kl,
    teacher_entropy,
    universal_logit_distance,
)
from distill_data.student.result import EvaluationResult
from distill_data.student.vocabulary import check_vocabulary, vocabulary_size
from distill_data.student_config import Evaluate

LABEL_TENSORS = ("target_ids", "sampled_logprobs", "support_ids", "support_logprobs")


def evaluate_student(
    model: PreTrainedModel,
    labels: pa.Table,
    evaluate: Evaluate,
    max_length: int,
    kind: LabelKind = TEACHERS_OWN,
) -> EvaluationResult:
    """Evaluate a student, trained or not, on the first `evaluate.max_traces` rows of a SOFT_LABELS_SCHEMA
    table.

    Of sampled soft labels, KL and entropy are estimates of those over the whole vocabulary. Where a token without soft
    labels is a hard one, it counts as one of which the teacher is sure. Runs on the device where the model is, and
    leaves the model as it found it.

    Raises:
        StudentError: there is no held-out trace, none fits max_length, or ids do not fit the student.
    """
    if labels.num_rows == 0:
        raise StudentError("the corpus has no held-out traces: set validation.fraction above 0 and build again")
    dataset = SoftLabelDataset(labels.slice(0, evaluate.max_traces), max_length, kind.unlabelled)
    check_vocabulary(vocabulary_size(model), 0, dataset.max_token_id)
    # pyright cannot see that a map-style dataset needs no dataset of tensors.
    loader: Any = DataLoader(dataset, evaluate.batch_size, collate_fn=SoftLabelCollator())
    training = model.training
    model.eval()
    with torch.inference_mode(), quiet_transformers():
        head = plain_head(model)
        on_device = ({name: values.to(model.device) for name, values in batch.items()} for batch in loader)
        totals = [_batch_totals(model, head, batch, kind) for batch in on_device]
    model.train(training)
    sums = {name: sum(batch[name] for batch in totals) for name in totals[0]}
    tokens = sums.pop("tokens")
    means = {name: total / tokens for name, total in sums.items()}
    return EvaluationResult(
        traces=len(dataset),
        too_long=dataset.too_long,
        tokens=int(tokens),
        perplexity=math.exp(min(means["cross_entropy"], 700.0)),  # e^710 is no float any more
        **means,
    )


def _batch_totals(model: PreTrainedModel, head: Any, batch: dict[str, Tensor], kind: LabelKind) -> dict[str, float]:
    """Sums over one batch: its tokens and what `_per_token` gives."""
    sums: dict[str, float] = {"tokens": len(batch["target_ids"])}
    for part, logits in logit_chunks(model, head, batch, ROWS):
        chunk = {name: values[part] for name, values in batch.items() if name in LABEL_TENSORS}
        for name, values in _per_token(logits, chunk, kind).items():
            sums[name] = sums.get(name, 0.0) + float(values.double().sum())
    return sums


def _per_token(logits: Tensor, labels: dict[str, Tensor], kind: LabelKind) -> dict[str, Tensor]:
    """What EvaluationResult holds the means of: [N] each, for logits [N, V]."""
    support_ids, support_logprobs = labels["support_ids"], labels["support_logprobs"]
    found = {"cross_entropy": cross_entropy(logits, labels["target_ids"])}
    if kind.compares == "ranks":
        found["uld"] = universal_logit_distance(logits, support_logprobs)
    if kind.compares != "ids":
        return found
    support = (logits, support_ids, support_logprobs)
    return found | {
        "kl": tail_bucket_kl(*support) if kind.draws is None else drawn_kl(*support, kind.draws),
        "teacher_cross_entropy": -labels["sampled_logprobs"],
        "teacher_entropy": teacher_entropy(support_logprobs, kind.draws),
        "top1_agreement": (logits.argmax(1) == support_ids[:, 0]).float(),
    }
