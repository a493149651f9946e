"""Tokenizers that cut texts elsewhere than `tests.tiny_model`'s byte-level one."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tiny_model import CHAT_TEMPLATE, SAMPLE_TEXT

SPECIAL = ["<unk>", "<s>", "</s>"]


def make_metaspace_tokenizer(vocab_size: int = 360) -> PreTrainedTokenizerFast:
    """As those of Llama 2 and Gemma: words that begin with their space, bytes for what it has no token for."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trained = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([text for text in SAMPLE_TEXT if text.isascii()] * 4, trained)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = CHAT_TEMPLATE
    return fast
