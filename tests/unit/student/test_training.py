from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from distill_data.errors import ConfigError, ModelError, StudentError
from distill_data.evaluate_config import Evaluate
from distill_data.student import training
from distill_data.student.collate import SoftLabelCollator
from distill_data.student.evaluation import evaluate_student
from distill_data.student.label_kind import HeldOut
from distill_data.student.model import load_saved_student, load_student
from distill_data.student.trainer import TrainProgress
from distill_data.student.training import TrainJob, TrainResult, train_student
from distill_data.student_config import EarlyStopping, Lora, Loss, NewStudent, Student, Train

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
    return Student(model=NewStudent(from_config=fields), train=Train(**settings))


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
    assert after.distance < 0.75 * before.distance
    assert after.top1_agreement is not None and before.top1_agreement is not None
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
    bloom = NewStudent(from_config=fields | {"initializer_range": 0.3})
    with pytest.raises(ModelError, match="packed traces see each other"):
        fit(config.model_copy(update={"model": bloom}), labels, tokenizer, tmp_path)


class Killed(Exception):
    pass


def killed_after(step: int, config: Student, labels: pa.Table, tokenizer: Any, output: Path, **job: Any) -> None:
    def on_step(progress: TrainProgress) -> None:
        if progress.point.step == step:
            raise Killed

    with pytest.raises(Killed):
        train_student(TrainJob(config, labels, tokenizer, output, **job), on_step)


@pytest.mark.parametrize("batching", ["padded", "length_grouped"])
def test_a_training_that_was_killed_in_a_later_epoch_keeps_its_order(
    batching: Any, labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    config = student(vocabulary, steps=12, batch_size=8, checkpoint_every=7, batching=batching)  # 5 steps an epoch
    whole = fit(config, labels, tokenizer, tmp_path / "whole")
    killed_after(8, config, labels, tokenizer, tmp_path / "killed")
    again = fit(config, labels, tokenizer, tmp_path / "killed")
    assert again.loss_curve == whole.loss_curve


@pytest.mark.parametrize("extra", [{}, {"batching": "packed"}, {"lora": Lora(rank=2, dropout=0.5)}])
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    extra: dict[str, Any], labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    config = student(vocabulary, steps=8, checkpoint_every=3, gradient_accumulation=2, batch_size=4, **extra)
    whole = fit(config, labels, tokenizer, tmp_path / "whole")
    killed_after(5, config, labels, tokenizer, tmp_path / "killed")
    shutil.copytree(tmp_path / "killed" / "checkpoint-3", tmp_path / "killed" / "checkpoint-6")
    (tmp_path / "killed" / "checkpoint-6" / "trainer_state.json").write_text('{"epoch": 1.')  # died while writing
    steps: list[int] = []
    again = train_student(
        TrainJob(config, labels, tokenizer, tmp_path / "killed"), lambda now: steps.append(now.point.step)
    )
    assert steps == [4, 5, 6, 7, 8]
    assert again.loss_curve == whole.loss_curve
    assert again.tokens == whole.tokens
    both = [load_file(folder / "model.safetensors") for folder in (whole.folder, again.folder)]
    assert both[0].keys() == both[1].keys() and all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    assert not list(again.folder.glob("checkpoint-*"))


@pytest.mark.parametrize("early_stopping", [None, EarlyStopping(every=2, patience=5)])
def test_a_training_that_could_not_be_saved_goes_on_to_the_same_end(
    early_stopping: Any, scored: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A full disk, say, after its last step, at which a checkpoint would be due."""
    config = student(
        vocabulary, steps=6, batch_size=8, learning_rate=5e-2, checkpoint_every=3, early_stopping=early_stopping
    )
    few, held_out = scored.slice(HELD_OUT, 32), HeldOut(scored.slice(0, HELD_OUT))

    def train(name: str) -> TrainResult:
        return train_student(TrainJob(config, few, tokenizer, tmp_path / name, held_out=held_out), lambda now: None)

    whole = train("whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("distill_data.student.training._save", lambda *_: (_ for _ in ()).throw(Killed))
        train("full")
    again = train("full")
    assert again.loss_curve == whole.loss_curve and again.steps == whole.steps
    assert again.best_step == whole.best_step and again.tokens == whole.tokens
    both = [load_file(folder / "model.safetensors") for folder in (whole.folder, again.folder)]
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    assert not [*again.folder.glob("best-*"), *again.folder.glob("checkpoint-*")]


def test_early_stopping_keeps_the_weights_that_were_best(
    scored: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    rule = EarlyStopping(every=5, patience=2)
    config = student(vocabulary, steps=200, learning_rate=5e-2, checkpoint_every=7, early_stopping=rule)
    held_out = scored.slice(0, HELD_OUT)
    few = scored.slice(HELD_OUT, 8)  # few enough to be learnt by heart
    result = train_student(
        TrainJob(config, few, tokenizer, tmp_path / "a", held_out=HeldOut(held_out)), lambda now: None
    )
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    looks = {line["step"]: line["held_out_kl"] for line in lines if "held_out_kl" in line}
    assert result.steps == max(looks) < 200
    assert result.best_step == min(looks, key=lambda step: looks[step]) == result.steps - 10
    measured = evaluate_student(load_saved_student(result.folder), held_out, Evaluate(), max_length=64)
    assert measured.kl == pytest.approx(looks[result.best_step], rel=1e-5)
    assert not list(result.folder.glob("best-*"))

    killed_after(result.steps - 1, config, few, tokenizer, tmp_path / "b", held_out=HeldOut(held_out))
    again = train_student(
        TrainJob(config, few, tokenizer, tmp_path / "b", held_out=HeldOut(held_out)), lambda now: None
    )
    assert (again.best_step, again.loss_curve) == (result.best_step, result.loss_curve)


def test_early_stopping_needs_something_to_look_at(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    config = student(vocabulary, early_stopping=EarlyStopping())
    with pytest.raises(StudentError, match="looks at held-out traces and there are none"):
        fit(config, labels, tokenizer, tmp_path)


def test_adapters_are_all_that_trains_and_are_merged(
    labels: pa.Table, tokenizer: Any, tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    config = Student(model=str(tiny_model), train=Train(steps=3, learning_rate=1e-2, lora=Lora(rank=2, alpha=8)))
    result = fit(config, labels, tokenizer, tmp_path / "student")
    start, merged = load_saved_student(tiny_model), load_saved_student(result.folder)
    moved = {name for name, values in merged.state_dict().items() if not torch.equal(values, start.state_dict()[name])}
    assert moved and all("_proj." in name for name in moved)
    adapted: Any = PeftModel.from_pretrained(start, str(result.folder / "adapter"))
    ids = torch.arange(3, 20)[None]
    with torch.inference_mode():
        assert torch.allclose(adapted(ids).logits, merged(ids).logits, atol=1e-4)


@pytest.mark.parametrize("lora", [None, Lora(rank=2, alpha=8)], ids=["whole", "adapters"])
def test_weights_that_were_gathered_from_shards_are_the_student(
    lora: Lora | None, labels: pa.Table, tokenizer: Any, tiny_model: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Sharding needs GPUs; what it leads to is the path that gathers a state dict and saves a model of it."""
    config = Student(model=str(tiny_model), train=Train(steps=3, learning_rate=1e-2, lora=lora))
    plain = fit(config, labels, tokenizer, tmp_path / "plain")
    save = training._save

    def save_gathered(trainer: Any, *rest: Any) -> None:
        trainer.is_fsdp_enabled = True
        save(trainer, *rest)

    monkeypatch.setattr(training, "_save", save_gathered)
    gathered = fit(config, labels, tokenizer, tmp_path / "gathered")
    ours, theirs = (load_saved_student(result.folder).state_dict() for result in (gathered, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    names = [sorted(file.name for file in result.folder.rglob("*")) for result in (plain, gathered)]
    assert names[0] == names[1]


def test_adapters_for_layers_that_are_not_there_are_refused(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"student\.train\.lora cannot be put into the student .* target_modules"):
        fit(student(vocabulary, lora=Lora(target_modules=["nope"])), labels, tokenizer, tmp_path)


def test_gradient_checkpointing_changes_memory_and_nothing_else(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    plain, saving = (
        fit(student(vocabulary, gradient_checkpointing=on), labels, tokenizer, tmp_path / str(on)).loss_curve
        for on in (False, True)
    )
    assert [point.loss for point in plain] == pytest.approx([point.loss for point in saving], rel=1e-6)


def test_metrics_are_in_tensorboards_files_too(
    labels: pa.Table, tokenizer: Any, vocabulary: int, tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = fit(student(vocabulary, tensorboard=True), labels, tokenizer, tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("kl")] == pytest.approx([point.kl for point in result.loss_curve])
