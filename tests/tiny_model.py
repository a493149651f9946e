"""Tiny models with real parts: a byte-level BPE tokenizer with a chat template, and a Llama that vLLM loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # their ids are their places here
SAMPLE_TEXT = [
    "What is 12 + 30? Think step by step, then finish with a line.",
    "Answer: 42",
    "The quick brown fox jumps over the lazy dog; 0123456789.",
    "这部电影很棒。 Ünïcödé — مرحبا 🙂",
]


def make_tokenizer(
    vocab_size: int = 400, chat_template: str | None = CHAT_TEMPLATE, more_special_tokens: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that can write any text, with the special tokens of ChatML and those given."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        SAMPLE_TEXT * 4,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[*SPECIAL_TOKENS, *more_special_tokens],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    if chat_template is not None:
        fast.chat_template = chat_template
    return fast


def make_tiny_model(
    folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, layers: int = 2, seed: int = 0, broken: bool = False
) -> Path:
    """Save a tiny random Llama (vocabulary padded to a multiple of 64) with its tokenizer.

    A `broken` one has weights that are not finite, so its logits are NaN.
    """
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(chat_template=chat_template)
    model: Any = LlamaForCausalLM(_tiny_config(tokenizer, layers))
    if broken:
        model.lm_head.weight.data[:] = float("nan")
    return _save(folder, model, tokenizer)


def make_counting_model(
    folder: Path, *, chat_template: str | None = CHAT_TEMPLATE, vocab_size: int | None = None
) -> Path:
    """Save a Llama in which token n is followed by n + 1, whatever came before.

    Attention and MLP add nothing; the head looks for the embedding of the token before. `vocab_size` pads its
    vocabulary that far.
    """
    torch.manual_seed(0)
    tokenizer = make_tokenizer(chat_template=chat_template)
    model: Any = LlamaForCausalLM(_tiny_config(tokenizer, layers=1, vocab_size=vocab_size))
    embeddings = torch.nn.functional.normalize(torch.randn_like(model.model.embed_tokens.weight), dim=-1)
    model.model.embed_tokens.weight.data = embeddings
    model.lm_head.weight.data = 4.0 * embeddings.roll(1, dims=0)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    return _save(folder, model, tokenizer)


def _tiny_config(tokenizer: PreTrainedTokenizerFast, layers: int, vocab_size: int | None = None) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size or (len(tokenizer) + 63) // 64 * 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.3,  # sharp enough that distributions differ from uniform
        bos_token_id=SPECIAL_TOKENS.index("<|im_start|>"),
        eos_token_id=SPECIAL_TOKENS.index("<|im_end|>"),
        pad_token_id=SPECIAL_TOKENS.index("<|im_end|>"),
        tie_word_embeddings=False,
    )


def _save(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
