"""A tokenizer without transformers, whose import would take most of a replay worker's start."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any


class QuickTokenizer:
    """What replay workers need of the tokenizer of `tests.tiny_model`."""

    is_fast = True

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.backend_tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.bos_token_id = self.backend_tokenizer.token_to_id("<|im_start|>")
        self.eos_token_id = self.pad_token_id = self.backend_tokenizer.token_to_id("<|im_end|>")
        self.all_special_ids = [self.bos_token_id, self.eos_token_id]

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def __call__(self, text: str | list[str], add_special_tokens: bool = True) -> dict[str, Any]:
        encode = partial(self.backend_tokenizer.encode, add_special_tokens=add_special_tokens)
        return {"input_ids": encode(text).ids if isinstance(text, str) else [encode(one).ids for one in text]}

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id."""
        return self.backend_tokenizer.get_vocab()

    def batch_decode(self, ids: list[Any], skip_special_tokens: bool, **_: Any) -> list[str]:
        """Texts of rows of ids."""
        return self.backend_tokenizer.decode_batch([row.tolist() for row in ids], skip_special_tokens)

    def decode(self, ids: list[int]) -> str:
        """The text of these ids."""
        return self.backend_tokenizer.decode(ids)


def load_quickly(models: Any) -> None:
    """Change `distill_data.models`."""
    models.load_tokenizer = lambda source, **_: QuickTokenizer(source.path)
