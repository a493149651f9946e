"""Measure a student against its teacher on held-out traces, position by position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from distill_data.errors import StudentError
from distill_data.evaluate_config import Evaluate
from distill_data.student.calibration import confidence_bins
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
from distill_data.student.result import EvaluationResult, TraceFigures
from distill_data.student.vocabulary import check_vocabulary, vocabulary_size

LABEL_TENSORS = ("target_ids", "sampled_logprobs", "support_ids", "support_logprobs")


def evaluate_student(
    model: PreTrainedModel,
    labels: pa.Table,
    evaluate: Evaluate,
    max_length: int,
    kind: LabelKind = TEACHERS_OWN,
) -> EvaluationResult:
    """Means over tokens of what `evaluate_traces` finds."""
    return evaluate_traces(model, labels, evaluate, max_length, kind).result


def evaluate_traces(
    model: PreTrainedModel,
    labels: pa.Table,
    evaluate: Evaluate,
    max_length: int,
    kind: LabelKind = TEACHERS_OWN,
) -> TraceFigures:
    """Evaluate a student, trained or not, on the first `evaluate.max_traces` rows of a SOFT_LABELS_SCHEMA
    table.

    Of sampled soft labels, KL and entropy are estimates of those over the whole vocabulary. Where a token without soft
    labels is a hard one, it counts as one of which the teacher is sure. Runs on the device where the model is, and
    leaves the model as it found it.

    Raises:
        StudentError: there is no held-out trace, none fits max_length, or ids do not fit the student.
    """
    dataset, loader = _loaded(labels, evaluate, max_length, kind)
    check_vocabulary(vocabulary_size(model), 0, dataset.max_token_id)
    training = model.training
    model.eval()
    with torch.inference_mode(), quiet_transformers():
        head = plain_head(model)
        on_device = ({name: values.to(model.device) for name, values in batch.items()} for batch in loader)
        found = [_trace_sums(batch, _model_says(model, head, batch, kind)) for batch in on_device]
    model.train(training)
    return _figures(dataset, found)


def evaluate_teacher(labels: pa.Table, evaluate: Evaluate, max_length: int, kind: LabelKind) -> TraceFigures:
    """What `evaluate_traces` would find of the teacher itself, from its labels alone.

    Sampled soft labels do not say which token was likeliest: of them there is no calibration.

    Raises:
        StudentError: as for `evaluate_traces`.
    """
    dataset, loader = _loaded(labels, evaluate, max_length, kind)
    return _figures(dataset, [_trace_sums(batch, _labels_say(batch, kind)) for batch in loader])


def _loaded(labels: pa.Table, evaluate: Evaluate, max_length: int, kind: LabelKind) -> tuple[SoftLabelDataset, Any]:
    if labels.num_rows == 0:
        raise StudentError("the corpus has no held-out traces: set validation.fraction above 0 and build again")
    dataset = SoftLabelDataset(labels.slice(0, evaluate.max_traces), max_length, kind.unlabelled)
    # pyright cannot see that a map-style dataset needs no dataset of tensors.
    loader: Any = DataLoader(dataset, evaluate.batch_size, collate_fn=SoftLabelCollator())  # type: ignore[arg-type]
    return dataset, loader


def _model_says(
    model: PreTrainedModel, head: Any, batch: dict[str, Tensor], kind: LabelKind
) -> Iterator[dict[str, Tensor]]:
    """What `_per_token` gives, a chunk of a batch's label positions at a time."""
    for part, logits in logit_chunks(model, head, batch, ROWS):
        yield _per_token(logits, {name: values[part] for name, values in batch.items() if name in LABEL_TENSORS}, kind)


def _labels_say(batch: dict[str, Tensor], kind: LabelKind) -> Iterator[dict[str, Tensor]]:
    """The same of the teacher."""
    found = {"cross_entropy": -batch["sampled_logprobs"], "kl": torch.zeros_like(batch["sampled_logprobs"])}
    if kind.draws is None:
        found["confidence"] = batch["support_logprobs"][:, 0].exp()
        found["hit"] = (batch["support_ids"][:, 0] == batch["target_ids"]).float()
        found["top1_agreement"] = torch.ones_like(found["hit"])
    yield found


def _trace_sums(batch: dict[str, Tensor], chunks: Iterable[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """Sums over each of B traces, float64 [B], `tokens` among them, and the batch's `bins` of confidence."""
    pieces = list(chunks)
    tokens = batch["label_mask"].sum(1)
    flat = {name: torch.cat([piece[name] for piece in pieces]).double() for name in pieces[0]}
    trace = torch.repeat_interleave(tokens)
    found = {name: torch.zeros(len(tokens), dtype=torch.float64, device=trace.device).index_add_(0, trace, values)
             for name, values in flat.items() if name not in ("confidence", "hit")}  # fmt: skip
    sums = {name: values.cpu().numpy() for name, values in found.items()} | {"tokens": tokens.cpu().numpy()}
    if "confidence" in flat:
        sums["bins"] = confidence_bins(flat["confidence"].cpu().numpy(), flat["hit"].cpu().numpy())
    return sums


def _figures(dataset: SoftLabelDataset, found: list[dict[str, np.ndarray]]) -> TraceFigures:
    sums = {name: np.concatenate([batch[name] for batch in found]) for name in found[0] if name != "bins"}
    bins = np.sum([batch["bins"] for batch in found], axis=0) if "bins" in found[0] else None
    return TraceFigures(dataset.rows, sums.pop("tokens"), sums, bins, dataset.too_long)


def _per_token(logits: Tensor, labels: dict[str, Tensor], kind: LabelKind) -> dict[str, Tensor]:
    """What EvaluationResult holds the means of, and `confidence` and `hit` of the likeliest token: [N] each, for logits
    [N, V].
    """
    support_ids, support_logprobs = labels["support_ids"], labels["support_logprobs"]
    highest, likeliest = logits.max(1)
    found = {
        "cross_entropy": cross_entropy(logits, labels["target_ids"]),
        "confidence": (highest.float() - logits.float().logsumexp(1)).exp(),
        "hit": (likeliest == labels["target_ids"]).float(),
    }
    if kind.compares == "ranks":
        found["uld"] = universal_logit_distance(logits, support_logprobs)
    if kind.compares != "ids":
        return found
    support = (logits, support_ids, support_logprobs)
    return found | {
        "kl": tail_bucket_kl(*support) if kind.draws is None else drawn_kl(*support, kind.draws),
        "teacher_cross_entropy": -labels["sampled_logprobs"],
        "teacher_entropy": teacher_entropy(support_logprobs, kind.draws),
        "top1_agreement": (likeliest == support_ids[:, 0]).float(),
    }
