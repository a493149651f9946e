"""In the builds that `kills` kills: record every request that goes into an engine, and start in a second."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.hooks.imports import after_import

_started = os.open(os.environ["DISTILL_DATA_STARTED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class QuickTokenizer:
    """A tokenizer without transformers, whose import would take most of a start."""

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


def _load_quickly(models: Any) -> None:
    models.load_tokenizer = lambda source, **_: QuickTokenizer(source.path)


def _record_requests(replay: Any) -> None:
    add = replay.ReplayTeacher.add

    def add_and_record(teacher: Any, request: Any) -> None:
        os.write(_started, f"{request.request_id}\n".encode())
        add(teacher, request)

    replay.ReplayTeacher.add = add_and_record


def _restart_soon(slot: Any) -> None:
    slot.BACKOFF_SECONDS = slot.MAX_BACKOFF_SECONDS = 0.1


after_import("distill_data.models", _load_quickly)
after_import("distill_data.teachers.replay", _record_requests)
after_import("distill_data.teachers.slot", _restart_soon)
