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
from distill_data.student.losses import cross_entropy, drawn_kl, tail_bucket_kl, teacher_entropy
from distill_data.student.result import EvaluationResult
from distill_data.student.vocabulary import check_vocabulary, vocabulary_size
from distill_data.student_config import Evaluate, Unlabelled


def evaluate_student(
    model: PreTrainedModel,
    labels: pa.Table,
    evaluate: Evaluate,
    max_length: int,
    draws: int | None = None,
    unlabelled: Unlabelled = "refuse",
) -> EvaluationResult:
    """Evaluate a student, trained or not, on the first `evaluate.max_traces` rows of a SOFT_LABELS_SCHEMA
    table.

    With `draws`, those of sampled soft labels, KL and entropy are estimates of those over the whole vocabulary. With
    `unlabelled: cross_entropy` a token without soft labels counts as one of which the teacher is sure. Runs on the
    device where the model is, and leaves the model as it found it.

    Raises:
        StudentError: there is no held-out trace, none fits max_length, or ids do not fit the student.
    """
    if labels.num_rows == 0:
        raise StudentError("the corpus has no held-out traces: set validation.fraction above 0 and build again")
    dataset = SoftLabelDataset(labels.slice(0, evaluate.max_traces), max_length, unlabelled)
    check_vocabulary(vocabulary_size(model), 0, dataset.max_token_id)
    # pyright cannot see that a map-style dataset needs no dataset of tensors.
    loader: Any = DataLoader(dataset, evaluate.batch_size, collate_fn=SoftLabelCollator())
    training = model.training
    model.eval()
    with torch.inference_mode(), quiet_transformers():
        head = plain_head(model)
        on_device = ({name: values.to(model.device) for name, values in batch.items()} for batch in loader)
        totals = [_batch_totals(model, head, batch, draws) for batch in on_device]
    model.train(training)
    tokens, *sums = torch.stack(totals).sum(0).tolist()
    kl, student_ce, teacher_ce, entropy, agreements = (total / tokens for total in sums)
    return EvaluationResult(
        traces=len(dataset),
        too_long=dataset.too_long,
        tokens=int(tokens),
        kl=kl,
        cross_entropy=student_ce,
        perplexity=math.exp(min(student_ce, 700.0)),  # e^710 is no float any more
        teacher_cross_entropy=teacher_ce,
        teacher_entropy=entropy,
        top1_agreement=agreements,
    )


def _batch_totals(model: PreTrainedModel, head: Any, batch: dict[str, Tensor], draws: int | None) -> Tensor:
    """Sums over one batch: tokens, KL, both cross-entropies, entropy, agreements; float64 [6]."""
    sums = torch.zeros(6, dtype=torch.float64)
    for part, logits in logit_chunks(model, head, batch, ROWS):
        support_ids, support_logprobs = batch["support_ids"][part], batch["support_logprobs"][part]
        support = (logits, support_ids, support_logprobs)
        per_token = torch.stack(
            [
                torch.ones_like(batch["sampled_logprobs"][part]),
                tail_bucket_kl(*support) if draws is None else drawn_kl(*support, draws),
                cross_entropy(logits, batch["target_ids"][part]),
                -batch["sampled_logprobs"][part],
                teacher_entropy(support_logprobs, draws),
                (logits.argmax(1) == support_ids[:, 0]).float(),
            ]
        )
        sums += per_token.double().sum(1).cpu()
    return sums
