"""The chunked loss is `mixed_loss` of the model's own logits, whatever the model, and makes no big tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from distill_data.student import chunked_loss
from distill_data.student.chunked_loss import Labels, head_loss, logits_loss
from distill_data.student.forward import batch_logits, label_hidden, plain_head
from distill_data.student.losses import MixedLoss, mixed_loss
from distill_data.student.training import TrainJob, train_student
from distill_data.student_config import Loss, NewStudent, Student, Train
from tests.unit.student.conftest import label_logits

VOCABULARY, ROWS = 40, 4
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0,
}  # fmt: skip
PLAIN: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "llama, tied": {"model_type": "llama", "tie_word_embeddings": True},
    "qwen2, tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3"},
    "gemma2 without softcap": {"model_type": "gemma2", "final_logit_softcapping": None},
    "gpt2, tied": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2},
    "phi, bias": {"model_type": "phi"},
}
TRANSFORMED: dict[str, dict[str, Any]] = {
    "gemma2, softcap": {"model_type": "gemma2", "final_logit_softcapping": 5.0},
    "granite, scaled": {"model_type": "granite", "logits_scaling": 4.0},
    "cohere, scaled": {"model_type": "cohere", "logit_scale": 0.3},
}
OBJECTIVES = [
    Loss(),
    Loss(objective="renormalised_kl", temperature=2.0),
    Loss(objective="reverse_kl", kl=0.5, cross_entropy=0.0),
    Loss(objective="jsd", beta=0.3),
    Loss(objective="uld"),
    Loss(objective="text"),
]
every_objective = pytest.mark.parametrize("weights", OBJECTIVES, ids=lambda weights: weights.objective)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "ROWS", ROWS)


def make_model(fields: dict[str, Any]) -> Any:
    """A random model whose logits are large enough for a softcap to bend."""
    torch.manual_seed(0)
    own: dict[str, Any] = {"vocab_size": VOCABULARY} if fields["model_type"] == "gpt2" else SMALL
    settings: dict[str, Any] = own | fields
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(40)
    return model.eval()  # a dropout would draw anew for every path


def make_labels(rows: int, vocabulary: int = VOCABULARY, width: int = 6) -> Labels:
    """Rounded labels of random teachers, with supports of 1 to `width` entries."""
    generator = torch.Generator().manual_seed(1)
    top = (2 * torch.randn(rows, vocabulary, generator=generator)).log_softmax(1).topk(width, 1)
    counts = torch.randint(1, width + 1, (rows, 1), generator=generator)
    absent = torch.arange(width) >= counts
    logprobs = top.values.half().float().masked_fill(absent, -torch.inf)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    return Labels(targets, top.indices.masked_fill(absent, 0), logprobs)


def make_batch() -> tuple[dict[str, Tensor], Labels]:
    """Three traces of 10, 7 and 4 tokens with 17 labelled positions: four chunks and a rest."""
    generator = torch.Generator().manual_seed(2)
    lengths, prompts = torch.tensor([10, 7, 4])[:, None], torch.tensor([2, 1, 1])[:, None]
    positions = torch.arange(10)[None]
    mask = (positions >= prompts - 1) & (positions < lengths - 1)
    batch = {
        "input_ids": torch.randint(1, VOCABULARY, (3, 10), generator=generator),
        "attention_mask": (positions < lengths).long(),
        "label_mask": mask,
    }
    return batch, make_labels(int(mask.sum()))


def chunked(model: Any, batch: dict[str, Tensor], labels: Labels, weights: Loss, draws: int | None = None) -> MixedLoss:
    head = plain_head(model)
    if head is None:
        return logits_loss(*batch_logits(model, batch), labels, weights, 30, draws)
    return head_loss(label_hidden(model, batch), head, labels, weights, 30, draws)


def test_drawn_labels_are_passed_on() -> None:
    for fields in (next(iter(PLAIN.values())), next(iter(TRANSFORMED.values()))):
        model, (batch, labels) = make_model(fields), make_batch()
        whole = mixed_loss(label_logits(model, batch), *labels, Loss(), 30, draws=5)
        expected = gradients_of(model, whole.total)
        parts = chunked(model, batch, labels, Loss(), draws=5)
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradients_of(model, parts.total), expected, rtol=1e-4, atol=1e-6)


def test_positions_without_labels_are_passed_over_by_sorted_probabilities() -> None:
    weights = Loss(objective="uld")
    for fields in (next(iter(PLAIN.values())), next(iter(TRANSFORMED.values()))):
        model, (batch, labels) = make_model(fields), make_batch()
        labels.support_logprobs[[0, 5, 16]] = -torch.inf
        whole = mixed_loss(label_logits(model, batch), *labels, weights, 30)
        expected = gradients_of(model, whole.total)
        parts = chunked(model, batch, labels, weights)
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradients_of(model, parts.total), expected, rtol=1e-4, atol=1e-6)


def gradients_of(model: Any, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    total.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@every_objective
@pytest.mark.parametrize("fields", [*PLAIN.values(), *TRANSFORMED.values()], ids=[*PLAIN, *TRANSFORMED])
def test_values_and_gradients_are_those_of_the_whole_logits(fields: dict[str, Any], weights: Loss) -> None:
    model, (batch, labels) = make_model(fields), make_batch()
    assert len(labels.target_ids) > 4 * ROWS
    whole = mixed_loss(label_logits(model, batch), *labels, weights, 30)
    expected = gradients_of(model, whole.total)
    parts = chunked(model, batch, labels, weights)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    found = gradients_of(model, parts.total)
    assert found.keys() == expected.keys()
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("fields", PLAIN.values(), ids=PLAIN)
def test_a_plain_head_is_found_and_the_model_left_as_it_was(fields: dict[str, Any]) -> None:
    model = make_model(fields).train()
    state = torch.random.get_rng_state()
    head = plain_head(model)
    assert head is not None and head is model.get_output_embeddings()
    assert model.training and not head._forward_hooks and not model.base_model._forward_hooks
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("fields", TRANSFORMED.values(), ids=TRANSFORMED)
def test_a_head_with_something_after_it_is_not_plain(fields: dict[str, Any]) -> None:
    assert plain_head(make_model(fields)) is None


def test_a_changed_head_is_not_plain() -> None:
    class Adapter(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * 2

    model = make_model(PLAIN["llama"])
    model.lm_head.register_forward_pre_hook(lambda module, arguments: (arguments[0] * 2,))
    assert plain_head(model) is None
    model = make_model(PLAIN["llama"])
    model.lm_head.register_forward_hook(lambda module, arguments, output: output * 2)
    assert plain_head(model) is None
    model = make_model(PLAIN["llama"])
    model.lm_head = Adapter(16, VOCABULARY, bias=False)
    assert plain_head(model) is None


def test_a_change_of_the_logits_in_place_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(PLAIN["llama"])
    forward = model.forward

    def scaled(*arguments: Any, **options: Any) -> Any:
        output = forward(*arguments, **options)
        output.logits.mul_(2)
        return output

    monkeypatch.setattr(model, "forward", scaled)
    assert plain_head(model) is None


def direct_problem(dtype: torch.dtype, bias: bool = True) -> tuple[Tensor, nn.Linear, Labels]:
    torch.manual_seed(5)
    head = nn.Linear(3, VOCABULARY, bias=bias, dtype=dtype)
    with torch.no_grad():
        head.weight.mul_(5)
    return torch.randn(3 * ROWS + 1, 3, dtype=dtype, requires_grad=True), head, make_labels(3 * ROWS + 1)


@every_objective
@pytest.mark.parametrize("bias", [False, True])
def test_float64_gradients_are_exact(weights: Loss, bias: bool) -> None:
    """`mixed_loss` itself passes gradcheck."""
    hidden, head, labels = direct_problem(torch.float64, bias)
    inputs = [hidden, *head.parameters()]
    whole = mixed_loss(head(hidden), *labels, weights)
    expected = torch.autograd.grad(3.0 * whole.total, inputs)
    parts = head_loss(hidden, head, labels, weights)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.autograd.grad(3.0 * parts.total, inputs), expected, rtol=1e-10, atol=1e-12)

    logits = head(hidden).detach()[None].requires_grad_()
    mask = torch.ones(1, len(hidden), dtype=torch.bool)
    (by_logits,) = torch.autograd.grad(3.0 * logits_loss(logits, mask, labels, weights).total, logits)
    (expected,) = torch.autograd.grad(3.0 * mixed_loss(logits[mask], *labels, weights).total, logits)
    torch.testing.assert_close(by_logits, expected, rtol=1e-10, atol=1e-12)


def test_a_support_of_the_whole_vocabulary() -> None:
    hidden, head, _ = direct_problem(torch.float64)
    labels = make_labels(len(hidden), width=VOCABULARY)
    labels = labels._replace(support_logprobs=torch.randn(len(hidden), VOCABULARY).double().log_softmax(1))
    labels = labels._replace(support_ids=torch.arange(VOCABULARY).expand(len(hidden), -1))
    for weights in OBJECTIVES:
        whole = mixed_loss(head(hidden), *labels, weights)
        (expected,) = torch.autograd.grad(whole.total, hidden)
        parts = head_loss(hidden, head, labels, weights)
        torch.testing.assert_close(parts, whole)
        torch.testing.assert_close(torch.autograd.grad(parts.total, hidden)[0], expected)


def test_gradients_accumulate_and_only_where_they_are_wanted() -> None:
    hidden, head, labels = direct_problem(torch.float32)
    head_loss(hidden, head, labels, Loss()).total.backward()
    once = [values.grad.clone() for values in (hidden, head.weight, head.bias) if values.grad is not None]
    head_loss(hidden, head, labels, Loss()).total.backward()
    torch.testing.assert_close([hidden.grad, head.weight.grad, head.bias.grad], [2 * values for values in once])
    head.requires_grad_(False)
    hidden.grad = None
    head_loss(hidden, head, labels, Loss()).total.backward()
    torch.testing.assert_close([hidden.grad, head.weight.grad], [once[0], 2 * once[1]])


def test_a_second_backward_pass_is_refused() -> None:
    hidden, head, labels = direct_problem(torch.float32)
    total = head_loss(hidden, head, labels, Loss()).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_without_gradients_there_are_values_only() -> None:
    hidden, head, labels = direct_problem(torch.float32)
    with torch.no_grad():
        found = head_loss(hidden, head, labels, Loss())
        torch.testing.assert_close(found, mixed_loss(head(hidden), *labels, Loss()))
    assert not found.total.requires_grad
    kept = head_loss(hidden, head, labels, Loss())
    assert kept.total.requires_grad and not kept.kl.requires_grad and not kept.cross_entropy.requires_grad


@pytest.mark.parametrize("name", ["llama, tied", "phi, bias", "gemma2, softcap"])
def test_bfloat16_autocast(name: str) -> None:
    model, (batch, labels) = make_model((PLAIN | TRANSFORMED)[name]), make_batch()
    head = plain_head(model)
    exact = gradients_of(model, mixed_loss(label_logits(model, batch), *labels, Loss(), 30).total)
    with torch.autocast("cpu", torch.bfloat16):
        whole = mixed_loss(label_logits(model, batch), *labels, Loss(), 30)
        parts = chunked(model, batch, labels, Loss())
    torch.testing.assert_close(parts, whole, rtol=5e-3, atol=5e-3)
    rounded, found = gradients_of(model, whole.total), gradients_of(model, parts.total)
    output = next(key for key, weight in model.named_parameters() if weight is model.get_output_embeddings().weight)
    assert found[output].dtype == torch.float32
    for key, gradient in exact.items():
        error, usual = (torch.linalg.norm(other[key] - gradient) for other in (found, rounded))
        assert 0 < error <= 1.5 * usual + 1e-3 * torch.linalg.norm(gradient), key
    assert (head is None) == (name in TRANSFORMED)


@pytest.mark.parametrize("peak", [3e4, -3e4])
@every_objective
def test_extreme_logits_have_finite_gradients(weights: Loss, peak: float) -> None:
    hidden, head, labels = direct_problem(torch.float32)
    with torch.no_grad():
        head.bias[labels.support_ids[0, 0]] = peak
    losses = head_loss(hidden, head, labels, weights)
    losses.total.backward()
    assert torch.isfinite(torch.stack([losses.total, losses.kl, losses.cross_entropy])).all()
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all()
    assert head.weight.grad is not None and torch.isfinite(head.weight.grad).all()


class Largest(TorchDispatchMode):
    """The most elements that a tensor of a kind had, whichever operation made it."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype, self.elements = dtype, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.dtype == self.dtype:
                self.elements = max(self.elements, value.numel())
        return result


def test_no_tensor_of_all_positions_and_the_vocabulary() -> None:
    hidden, head, labels = direct_problem(torch.float32, bias=False)
    with Largest(torch.float32) as chunks:
        head_loss(hidden, head, labels, Loss()).total.backward()
    assert chunks.elements == ROWS * VOCABULARY
    with Largest(torch.float32) as whole:
        mixed_loss(head(hidden), *labels, Loss()).total.backward()
    assert whole.elements == len(hidden) * VOCABULARY

    logits = torch.randn(1, 3 * ROWS + 1, VOCABULARY, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(logits.shape[:2], dtype=torch.bool)
    with Largest(torch.float32) as given:
        logits_loss(logits, mask, labels, Loss()).total.backward()
    assert given.elements == ROWS * VOCABULARY


@pytest.mark.parametrize("batching", ["padded", "packed"])
@pytest.mark.parametrize("fields", [PLAIN["llama, tied"], TRANSFORMED["gemma2, softcap"]], ids=["plain", "softcap"])
def test_the_trainer_trains_either_kind_of_model(
    fields: dict[str, Any], batching: Any, scored: pa.Table, teacher: Any, tokenizer: Any, tmp_path: Path
) -> None:
    model = NewStudent(from_config=SMALL | fields | {"vocab_size": teacher.config.vocab_size})
    loss = Loss(objective="jsd", kl=2.0, cross_entropy=0.5)
    train = Train(steps=12, batch_size=8, learning_rate=3e-2, batching=batching, loss=loss)
    job = TrainJob(Student(model=model, train=train), scored, tokenizer, tmp_path)
    curve = train_student(job, lambda progress: None).loss_curve
    assert all(point.loss == pytest.approx(2 * point.kl + 0.5 * point.cross_entropy) for point in curve)
    assert curve[-1].loss < 0.9 * curve[0].loss
