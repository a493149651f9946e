from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from distill_data.errors import ModelError, StudentError
from distill_data.student.collate import SoftLabelCollator
from distill_data.student.evaluation import evaluate_student
from distill_data.student.model import load_saved_student, load_student
from distill_data.student.trainer import TrainProgress
from distill_data.student.training import TrainJob, TrainResult, train_student
from distill_data.student_config import Evaluate, FromConfig, Loss, Student, Train

HELD_OUT = 8


def student(vocabulary: int, context: int = 64, **train: Any) -> Student:
    fields = {
        "model_type": "llama",
        "vocab_size": vocabulary,  # the random teacher also says ids beyond its tokenizer
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
    }
    settings = {"steps": 4, "batch_size": 8, "learning_rate": 1e-3} | train
    return Student(model=FromConfig(from_config=fields), train=Train(**settings))


def fit(config: Student, labels: pa.Table, tokenizer: Any, output: Path) -> TrainResult:
    return train_student(TrainJob(config, labels, tokenizer, output), lambda progress: None)


@pytest.fixture
def vocabulary(teacher: Any) -> int:
    return teacher.config.vocab_size


def test_training_lowers_held_out_kl(scored: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path) -> None:
    config = student(vocabulary, steps=30, learning_rate=1e-2)
    held_out = scored.slice(0, HELD_OUT)
    before = evaluate_student(load_student(config, tokenizer), held_out, Evaluate(), max_length=64)
    result = fit(config, scored.slice(HELD_OUT), tokenizer, tmp_path / "student")
    after = evaluate_student(load_saved_student(result.folder), held_out, Evaluate(), max_length=64)
    assert after.kl < 0.75 * before.kl
    assert after.top1_agreement > before.top1_agreement + 0.05
    assert result.loss_curve[-1].kl < 0.75 * result.loss_curve[0].kl


def test_progress_report_and_folder(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[TrainProgress] = []
    config = student(vocabulary, max_length=30, warmup_ratio=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = train_student(TrainJob(config, labels, tokenizer, tmp_path), seen.append)
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in caught] == []
    assert [p.point.step for p in seen] == [1, 2, 3, 4] and {p.steps for p in seen} == {4}
    assert [p.point for p in seen] == result.loss_curve
    assert [p.point.learning_rate for p in seen] == pytest.approx([0.0, 5e-4, 1e-3, 5e-4])
    for point in result.loss_curve:
        assert point.loss == pytest.approx(point.kl + 0.1 * point.cross_entropy)

    lengths = [
        len(r["prompt_token_ids"]) + len(r["completion_token_ids"])
        for r in labels.select(["prompt_token_ids", "completion_token_ids"]).to_pylist()
    ]
    short = [length for length in lengths if length <= 30]
    assert 0 < len(short) < len(lengths)
    assert (result.traces, result.too_long) == (len(short), len(lengths) - len(short))
    assert result.tokens == seen[-1].tokens
    assert result.tokens_per_second == pytest.approx(result.tokens / result.seconds)

    report = json.loads((tmp_path / "training.json").read_text())
    assert report["loss_curve"][3]["kl"] == result.loss_curve[3].kl
    assert report["student"]["train"]["max_length"] == 30
    weights = load_file(tmp_path / "model.safetensors")
    model = load_saved_student(tmp_path)
    assert result.parameters == sum(p.numel() for p in model.parameters())
    assert result.device == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert json.loads((tmp_path / "config.json").read_text())["use_cache"] is True
    assert (tmp_path / "tokenizer.json").is_file()


def test_tokens_count_what_was_seen(labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path) -> None:
    five = labels.slice(0, 5)
    result = fit(student(vocabulary, steps=4, batch_size=3), five, tokenizer, tmp_path)
    rows = five.to_pylist()
    epoch = sum(len(r["prompt_token_ids"]) + len(r["completion_token_ids"]) for r in rows)
    assert result.tokens == 2 * epoch  # 3 + 2 traces an epoch


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPU kernels do not promise equal sums")
def test_same_seed_same_student(labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> dict[str, torch.Tensor]:
        result = fit(student(vocabulary, seed=seed), labels, tokenizer, tmp_path / name)
        return load_file(result.folder / "model.safetensors")

    first, again, other = weights("a", 0), weights("b", 0), weights("c", 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_accumulated_batches_are_one_large_batch(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    whole = fit(student(vocabulary, batch_size=8), labels, tokenizer, tmp_path / "whole")
    parts = fit(student(vocabulary, batch_size=2, gradient_accumulation=4), labels, tokenizer, tmp_path / "parts")
    assert whole.tokens == parts.tokens
    for one, many in zip(whole.loss_curve, parts.loss_curve, strict=True):
        assert many.loss == pytest.approx(one.loss, rel=1e-5)
        assert many.kl == pytest.approx(one.kl, rel=1e-5)
    a, b = (load_file(r.folder / "model.safetensors")["lm_head.weight"] for r in (whole, parts))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_bfloat16_autocast_trains(labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path) -> None:
    exact = fit(student(vocabulary), labels, tokenizer, tmp_path / "exact")
    rounded = fit(student(vocabulary, bf16=True), labels, tokenizer, tmp_path / "bf16")
    assert [p.loss for p in rounded.loss_curve] == pytest.approx([p.loss for p in exact.loss_curve], rel=0.02)
    assert [p.loss for p in rounded.loss_curve] != [p.loss for p in exact.loss_curve]
    assert load_file(rounded.folder / "model.safetensors")["lm_head.weight"].dtype == torch.float32


def test_cross_entropy_alone_is_the_baseline(labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path) -> None:
    config = student(vocabulary, loss=Loss(kl=0.0, cross_entropy=1.0))
    result = fit(config, labels, tokenizer, tmp_path)
    assert all(point.loss == pytest.approx(point.cross_entropy) for point in result.loss_curve)
    assert all(point.kl > 0 for point in result.loss_curve)


def test_a_loss_that_is_not_finite_stops_and_saves_nothing(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    config = student(vocabulary, steps=20, learning_rate=1e38, max_grad_norm=1e38)
    with pytest.raises(StudentError, match=r"the loss is (nan|inf) at step \d+: lower"):
        fit(config, labels, tokenizer, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_misfits_are_refused_before_training(labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path) -> None:
    with pytest.raises(StudentError, match=r"context is 16: set student.train.max_length: 16"):
        fit(student(vocabulary, context=16), labels, tokenizer, tmp_path)
    with pytest.raises(StudentError, match=rf"{len(tokenizer)} token ids .*vocab_size: \d+"):
        fit(student(len(tokenizer)), labels, tokenizer, tmp_path)
    with pytest.raises(StudentError, match="longer than max_length 3"):
        fit(student(vocabulary, max_length=3), labels, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_packed_batches_train_the_same_student(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    padded = fit(student(vocabulary), labels, tokenizer, tmp_path / "padded")
    packed = fit(student(vocabulary, batching="packed"), labels, tokenizer, tmp_path / "packed")
    assert packed.tokens == padded.tokens
    assert [p.loss for p in packed.loss_curve] == pytest.approx([p.loss for p in padded.loss_curve], rel=1e-4)
    report = json.loads((packed.folder / "training.json").read_text())
    assert report["student"]["train"]["batching"] == "packed"


def test_length_grouped_batches_hold_traces_of_a_length(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def padding(batching: str) -> float:
        masks: list[torch.Tensor] = []

        def collate(self: Any, rows: Any) -> Any:
            masks.append(original(self, rows)["attention_mask"])
            return original(self, rows)

        with monkeypatch.context() as patch:
            patch.setattr(SoftLabelCollator, "__call__", collate)
            config = student(vocabulary, steps=10, batch_size=4, batching=batching)
            result = fit(config, labels, tokenizer, tmp_path / batching)
        assert result.tokens == sum(int(mask.sum()) for mask in masks[:10]) == sum(lengths)
        return sum(int((1 - mask).sum()) for mask in masks[:10])

    rows = labels.select(["prompt_token_ids", "completion_token_ids"]).to_pylist()
    lengths = [len(row["prompt_token_ids"]) + len(row["completion_token_ids"]) for row in rows]
    original = SoftLabelCollator.__call__
    assert padding("length_grouped") < 0.8 * padding("padded")


def test_packing_is_refused_before_training(labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path) -> None:
    fields = {"model_type": "bloom", "vocab_size": vocabulary, "hidden_size": 64, "n_layer": 1, "n_head": 2}
    config = student(vocabulary, batching="packed")
    bloom = FromConfig(from_config=fields | {"initializer_range": 0.3})
    with pytest.raises(ModelError, match="packed traces see each other"):
        fit(config.model_copy(update={"model": bloom}), labels, tokenizer, tmp_path)
