from __future__ import annotations

import json
import logging as python_logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.utils import logging

from distill_data.errors import ConfigError, ModelError, StudentError
from distill_data.models import resolve_model, tokenizer_fingerprint
from distill_data.student.check import check_student
from distill_data.student.collate import SoftLabelCollator
from distill_data.student.forward import quiet_transformers
from distill_data.student.model import load_saved_student, load_student
from distill_data.student.vocabulary import check_vocabulary, own_tokenizer, vocabulary_size
from distill_data.student_config import NewStudent, Student, Train
from distill_data.teacher_config import Teacher
from tests.tiny_model import make_counting_model, make_tokenizer
from tests.unit.student.conftest import label_logits

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def from_config(seed: int = 0, **fields: Any) -> Student:
    return Student(model=NewStudent(from_config=LLAMA | fields), train=Train(seed=seed))


def test_architecture_takes_vocabulary_and_special_tokens_from_the_tokenizer(tokenizer: Any) -> None:
    model = load_student(from_config(rope_theta=5000.0), tokenizer)
    assert isinstance(model, LlamaForCausalLM) and model.dtype == torch.float32
    assert vocabulary_size(model) == model.config.vocab_size == len(tokenizer)
    config = model.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    assert vocabulary_size(load_student(from_config(vocab_size=512), tokenizer)) == 512


def test_initial_weights_come_from_the_seed_alone(tokenizer: Any) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(3)
        return load_student(from_config(seed), tokenizer).get_input_embeddings().weight  # type: ignore[return-value]

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"hiden_size": 3}, r"hiden_size is no field of llama \(did you mean hidden_size\?\)"),
        ({"model_type": "lama"}, r"'lama' is no causal language model.*did you mean llama\?"),
        ({"model_type": "t5"}, "'t5' is no causal language model"),
        ({"hidden_size": "wide"}, "makes no llama model .*'hidden_size' expected int"),
        ({"hidden_size": 33}, "makes no llama model .*not a multiple"),
        ({"vocab_size": 10}, r"vocab_size 10 is smaller than the teacher's tokenizer \(\d+\): leave it out"),
    ],
)
def test_wrong_architecture_is_one_clear_line(fields: dict[str, Any], message: str, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_student(from_config(**fields), tokenizer)
    assert "\n" not in str(error.value)


def test_model_that_sees_the_future_is_refused(tokenizer: Any) -> None:
    bert = {"model_type": "bert", "initializer_range": 0.3}
    load_student(from_config(**bert, is_decoder=True), tokenizer)
    with pytest.raises(ModelError, match=r"BertLMHeadModel sees the tokens that it should predict: .*is_decoder"):
        load_student(from_config(**bert), tokenizer)


def test_folder_loads_in_float32_with_its_padded_vocabulary(tiny_model: Path, tokenizer: Any) -> None:
    model = load_student(Student(model=str(tiny_model)), tokenizer)
    stored = load_file(tiny_model / "model.safetensors")["model.embed_tokens.weight"]
    assert model.dtype == torch.float32 and stored.dtype == torch.bfloat16
    assert torch.equal(model.get_input_embeddings().weight, stored.float())  # type: ignore[arg-type]
    assert vocabulary_size(model) > len(tokenizer)
    check_vocabulary(vocabulary_size(model), len(tokenizer), len(tokenizer) - 1)


def test_missing_model_says_what_to_do(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_student(Student(model=str(tmp_path / "nothing")), tokenizer)


def test_lost_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "copy")
    weights = load_file(tiny_model / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights \(model.norm.weight"):
        load_saved_student(tmp_path / "copy")


def test_model_with_another_vocabulary_is_refused(tiny_model: Path) -> None:
    other = make_tokenizer(vocab_size=300)  # fewer merges: the same ids
    load_student(Student(model=str(tiny_model)), other)
    tokens = sorted(other.get_vocab().items(), key=lambda item: item[1])

    class Shifted:
        def get_vocab(self) -> dict[str, int]:
            return {token: (index + 1) % len(tokens) for token, index in tokens}

    with pytest.raises(StudentError, match=r"another vocabulary: id 0 is .*family"):
        load_student(Student(model=str(tiny_model)), Shifted())


def begun_with(folder: Path, eos: Any) -> Path:
    """A model in which token n is followed by n + 1, with this EOS."""
    make_counting_model(folder)
    for name in ("config.json", "generation_config.json"):
        stored = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(stored | {"eos_token_id": eos, "pad_token_id": 0}))
    return folder


def test_a_student_ends_with_the_eos_of_the_tokenizer_that_it_is_saved_with(tmp_path: Path, tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    base = begun_with(tmp_path / "base", eos=0)
    asked = torch.tensor([[end - 1]])
    assert load_saved_student(base).generate(asked, max_new_tokens=4).tolist() == [[1, 2, 3, 4, 5]]  # type: ignore[operator]
    load_student(Student(model=str(base)), tokenizer).save_pretrained(tmp_path / "student")
    student = load_saved_student(tmp_path / "student")
    assert student.generate(asked, max_new_tokens=4).tolist() == [[1, end]]  # type: ignore[operator]
    assert (student.config.eos_token_id, student.config.pad_token_id) == (end, tokenizer.pad_token_id)
    assert student.generation_config is not None
    assert student.generation_config.eos_token_id == [end, 0]  # <|endoftext|>: special, so in no answer
    assert student.generation_config.pad_token_id == tokenizer.pad_token_id


def test_an_old_eos_that_is_a_plain_word_now_does_not_end_a_text(tmp_path: Path, tokenizer: Any) -> None:
    several = load_student(Student(model=str(begun_with(tmp_path / "base", eos=[40, 0]))), tokenizer)
    assert several.generation_config is not None
    assert several.generation_config.eos_token_id == [tokenizer.eos_token_id, 0]
    assert several.config.eos_token_id == tokenizer.eos_token_id


def test_ids_that_mean_something_else_are_named_before_anything_is_paid_for(tmp_path: Path) -> None:
    base, teachers = begun_with(tmp_path / "base", eos=0), make_tokenizer()
    teachers.add_tokens(["<think>"], special_tokens=True)
    file = base / "tokenizer.json"
    file.write_text(file.read_text().replace("<|im_start|>", "<|user|>"))
    file = base / "tokenizer_config.json"
    file.write_text(file.read_text().replace("<|im_start|>", "<|user|>"))
    source, teacher = resolve_model(str(base)), Teacher(model=str(base))
    said = check_student(Student(model=str(base)), teachers, source, teacher)
    new = len(teachers) - 1
    assert f"2 ids are other tokens to it: 1 '<|user|>' becomes '<|im_start|>', {new} '<think>' is new" in said
    assert "it will end with 2 '<|im_end|>', not with EOS 0" in said


def test_another_tokenizer_needs_an_objective_that_compares_no_ids(
    tiny_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    ours = tokenizer_fingerprint(tokenizer)
    assert own_tokenizer(Student(model="a/b", tokenizer="teacher"), "anything") is None
    assert own_tokenizer(Student(model="a/b", tokenizer=str(tiny_model)), ours) is None
    make_tokenizer(vocab_size=300).save_pretrained(tmp_path / "other")
    other = Student(model="a/b", tokenizer=str(tmp_path / "other"))
    with pytest.raises(
        StudentError, match=r"forward_kl compares .*same ids: set .*uld \(sorted probabilities\) or text"
    ):
        own_tokenizer(other, ours)
    for objective in ("uld", "text"):
        train = Train.model_validate({"loss": {"objective": objective}})
        found = own_tokenizer(other.model_copy(update={"train": train}), ours)
        assert found is not None and len(found) == 300
    with pytest.raises(ModelError, match="cannot be loaded"):
        own_tokenizer(Student(model="a/b", tokenizer=str(tmp_path)), ours)


def test_vocabulary_must_hold_tokenizer_and_labels() -> None:
    check_vocabulary(151936, 151665, 151664)
    with pytest.raises(StudentError, match=r"400 token ids .* need 431.*vocab_size: 431"):
        check_vocabulary(400, 300, 430)
    with pytest.raises(StudentError, match="need 401"):
        check_vocabulary(400, 401, 3)


def test_label_logits_are_those_of_the_whole_forward_pass(teacher: PreTrainedModel) -> None:
    rows = [_row([4, 5, 6], [7, 8]), _row([9, 10, 11, 12], [13])]
    batch = SoftLabelCollator()(rows)
    with torch.inference_mode():
        whole = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        cut = label_logits(teacher, batch)
    assert cut.shape == (3, whole.shape[-1])
    expected = torch.stack([whole[0, 2], whole[0, 3], whole[1, 3]])
    torch.testing.assert_close(cut, expected)


def test_quiet_restores_what_it_changed() -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with quiet_transformers():
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (python_logging.ERROR, False)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def _row(prompt: list[int], completion: list[int]) -> dict[str, Any]:
    return {
        "prompt_token_ids": np.array(prompt, np.int32),
        "completion_token_ids": np.array(completion, np.int32),
        "sampled_logprobs": np.zeros(len(completion), np.float32),
        "support_counts": np.ones(len(completion), np.uint8),
        "support_ids": np.array(completion, np.int32),
        "support_logprobs": np.zeros(len(completion), np.float16),
    }
